//! The world of a run: the network, the servers and the hosts of the clients.

use crate::cluster::Servers;
use crate::faults::{self, ClientFaults, Struck, Tally};
use crate::host::Host;
use crate::net::Network;
use crate::schedule::Step;
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use test_support::cluster::SERVERS;

/// The number of client hosts: one beside each server.
pub const CLIENT_HOSTS: usize = SERVERS;
/// The last byte of the address of the first client host.
const FIRST_CLIENT: u8 = 11;
/// The last byte of the address of the control host.
const CONTROL: u8 = 100;

/// The network, the servers, and the hosts of the clients.
pub struct World {
    servers: Servers,
    clients: Vec<Host>,
    control: Arc<Host>,
    network: Network,
}

impl World {
    /// Starts the servers, and waits until they work. Their logs are in the folder.
    ///
    /// # Errors
    ///
    /// Network namespaces cannot be made here; the message says what to do. Consul is missing or does
    /// not start.
    pub fn start(seed: u64, folder: &Path) -> Result<World> {
        let network = Network::new(seed)?;
        let control = Arc::new(network.host("control", CONTROL)?);
        let client = |number: usize| network.host(&format!("c{}", number + 1), FIRST_CLIENT + number as u8);
        let clients = (0..CLIENT_HOSTS).map(client).collect::<Result<_>>()?;
        let servers = Servers::start(&network, Arc::clone(&control), folder)?;
        Ok(World { servers, clients, control, network })
    }

    /// Returns the servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Returns a host for clients, by number from 0 on: c1, c2 or c3. Its clients share the fate of
    /// the server with this number, if that is cut off with its clients.
    pub fn client_host(&self, number: usize) -> &Host {
        &self.clients[number]
    }

    /// Returns the host that no fault strikes, for what must be true: the last read, the judge.
    pub fn control(&self) -> &Host {
        &self.control
    }

    /// Returns the network, for rules of one's own.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Makes the faults of the schedule until it ends or `stop` is true, undoes them all, and waits
    /// until the servers work. Tells each fault to `record` when it has ended.
    ///
    /// # Errors
    ///
    /// A fault could not be made or undone, the servers do not recover, or two of them led in one term.
    pub fn run(
        &self,
        schedule: impl Iterator<Item = Step>,
        clients: &dyn ClientFaults,
        record: &(dyn Fn(Struck) + Sync),
        stop: &AtomicBool,
    ) -> Result<Tally> {
        faults::run(self, schedule, clients, record, stop)
    }
}
