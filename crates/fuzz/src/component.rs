//! The built component on the host's library, and a server that answers it from a script.

use consul_session_host::{CallError, Host};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use test_support::block_on;

/// How long a call may take that has at most a second.
const LONGEST_CALL: Duration = Duration::from_secs(20);

/// The component with its server, which all inputs share: compiling the component takes seconds.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| Fixture::new().unwrap_or_else(|error| panic!("{error:?}")));

/// What the server answers to the next requests; after the last one it closes the connection.
static REPLIES: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

struct Fixture {
    host: Host,
    server: SocketAddr,
    /// One input at a time.
    turn: Mutex<()>,
}

/// The component, for one input.
pub struct Component {
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new() -> anyhow::Result<Fixture> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The component has closed the connection, if that fails.
                let _ = serve(stream);
            }
        });
        let plugin = test_support::plugin()?;
        let builder = Host::builder().allow(format!("127.0.0.1:{}", server.port()).parse()?).locks(true);
        let host = builder.build(plugin).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Fixture { host, server, turn: Mutex::new(()) })
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONGEST_CALL))?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line.trim_end() != "" || line.is_empty() {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or_default();
            }
        }
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
        let reply = REPLIES.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(reply) = reply else { return Ok(()) };
        stream.get_mut().write_all(&reply)?;
        // Only an answer whose end is certain can be followed by another one.
        if !reply.starts_with(b"HTTP/1.1 200 OK\r\n") {
            return Ok(());
        }
    }
}

impl Component {
    /// Waits for the turn of this input, whose requests get these replies.
    pub fn with(replies: impl IntoIterator<Item = Vec<u8>>) -> Component {
        let turn = FIXTURE.turn.lock().unwrap_or_else(PoisonError::into_inner);
        *REPLIES.lock().unwrap_or_else(PoisonError::into_inner) = replies.into_iter().collect();
        Component { _turn: turn }
    }

    /// Returns the port of the server at 127.0.0.1.
    pub fn port(&self) -> u16 {
        FIXTURE.server.port()
    }

    /// Makes a call, which must end with a value or with an error of the plugin, and not with a trap
    /// or at a limit of the host.
    pub fn call<T, F: Future<Output = Result<T, CallError>>>(&self, call: impl FnOnce(&'static Host) -> F) -> Option<T> {
        let answer = block_on(async { tokio::time::timeout(LONGEST_CALL, call(&FIXTURE.host)).await });
        match answer.unwrap_or_else(|_| panic!("the call does not end")) {
            Ok(value) => Some(value),
            Err(CallError::Plugin(error)) => {
                assert!(!error.message().is_empty(), "{error:?}");
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Returns a complete answer with this status line and body, after which the connection stays open.
pub fn reply(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 7\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
