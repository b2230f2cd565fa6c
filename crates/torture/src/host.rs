//! A host of the network: a network namespace, in which programs and threads run.

use crate::net::{MTU, Network, address};
use anyhow::{Context, Result, anyhow};
use netconfig_rs::Interface;
use netconfig_rs::sys::InterfaceExt;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use test_support::consul::die_with_parent;
use tokio::runtime::Runtime;
use tun_rs::{DeviceBuilder, SyncDevice};

const REMEDY: &str = "namespaces cannot be made: run as root (`sudo -E`), or in `unshare --user --map-root-user`";

/// A host of a [`Network`]. Its programs are killed when it is dropped.
pub struct Host {
    name: String,
    number: u8,
    spaces: Arc<Spaces>,
    /// Starts the programs. Linux kills them when the *thread* ends that started them.
    starter: mpsc::Sender<Job>,
    runtime: OnceLock<Runtime>,
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// A file system in memory that only one host has.
pub struct Disk {
    /// The folder on which it is mounted.
    pub folder: PathBuf,
    /// The size in bytes.
    pub size: u64,
}

/// The namespaces of a host.
struct Spaces {
    network: File,
    /// If it has a disk.
    mounts: Option<File>,
}

impl Host {
    pub(crate) fn new(network: &Network, name: &str, number: u8, disk: Option<Disk>) -> Result<Host> {
        let thread = thread::Builder::new().name(name.to_owned());
        let (starter, jobs) = mpsc::channel::<Job>();
        let (made, result) = mpsc::channel();
        thread.spawn(move || {
            let spaces = make(number, disk.as_ref());
            let failed = spaces.is_err();
            if made.send(spaces).is_err() || failed {
                return;
            }
            for (mut command, answer) in jobs {
                // The receiver waits for the result.
                let _ = answer.send(die_with_parent(&mut command).spawn());
            }
        })?;
        let (spaces, device) = result.recv().context("the thread of a host has ended")??;
        network.attach(number, device)?;
        Ok(Host { name: name.to_owned(), number, spaces: Arc::new(spaces), starter, runtime: OnceLock::new() })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number, which is the last byte of the address.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Returns the address.
    pub fn address(&self) -> Ipv4Addr {
        address(self.number)
    }

    /// Starts a program on this host. It is killed when the host is dropped, or this process dies.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, child) = mpsc::channel();
        self.starter.send((command, answer)).map_err(io::Error::other)?;
        child.recv().map_err(io::Error::other)?
    }

    /// Runs a closure on this host, in a thread of its own, and waits for it.
    ///
    /// # Panics
    ///
    /// The closure panics.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let run = || self.spaces.enter().and_then(|()| closure());
        thread::scope(|scope| match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a thread on this host.
    pub fn thread<T: Send + 'static>(
        &self,
        closure: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let spaces = Arc::clone(&self.spaces);
        let thread = thread::Builder::new().name(self.name.clone());
        Ok(thread.spawn(move || spaces.enter().and_then(|()| closure()))?)
    }

    /// Returns the tokio runtime of this host. What is *spawned* on it runs on this host; the future of
    /// `block_on` does not.
    pub fn runtime(&self) -> &Runtime {
        self.runtime.get_or_init(|| {
            let spaces = Arc::clone(&self.spaces);
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name(&self.name)
                .enable_all()
                .on_thread_start(move || spaces.enter().expect("a namespace of this process"))
                .build()
                .expect("a tokio runtime")
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Else it waits for its threads, and cannot be dropped in another runtime.
            runtime.shutdown_background();
        }
    }
}

impl Spaces {
    /// Moves this thread into the namespaces.
    fn enter(&self) -> Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        if let Some(mounts) = &self.mounts {
            // Threads that share their working directory cannot change to other mounts.
            unshare(CloneFlags::CLONE_FS)?;
            setns(mounts, CloneFlags::CLONE_NEWNS)?;
        }
        Ok(())
    }
}

/// Makes the namespaces, in which this thread is afterwards.
fn make(number: u8, disk: Option<&Disk>) -> Result<(Spaces, SyncDevice)> {
    unshare(CloneFlags::CLONE_NEWNET).context(REMEDY)?;
    Interface::try_from_name("lo").and_then(|lo| lo.set_up(true)).map_err(|error| anyhow!("lo: {error}"))?;
    let device = DeviceBuilder::new().name("tun0").ipv4(address(number), 24, None).mtu(MTU).build_sync();
    let device = device.context("no TUN device: it takes the kernel's module `tun` and write access to /dev/net/tun")?;
    if let Some(disk) = disk {
        unshare(CloneFlags::CLONE_NEWNS).context(REMEDY)?;
        // Else the mount would be seen outside, and stay there.
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).context("/")?;
        let size = format!("size={}", disk.size);
        mount(Some("tmpfs"), disk.folder.as_path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .with_context(|| disk.folder.display().to_string())?;
    }
    let space = |kind: &str| File::open(Path::new("/proc/thread-self/ns").join(kind));
    Ok((Spaces { network: space("net")?, mounts: disk.map(|_| space("mnt")).transpose()? }, device))
}
