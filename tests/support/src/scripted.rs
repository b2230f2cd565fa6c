//! A server that follows a script, for behavior that a real agent does not show, and for the exact
//! bytes of requests.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{park, sleep};
use std::time::Duration;

/// A running server. Its threads end with the test process.
pub struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request as the server received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// All bytes of the head and the body.
    pub bytes: Vec<u8>,
    /// The number of its connection, counted from 0.
    pub connection: usize,
}

/// The reply of the server to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    pause: Duration,
    filler: u64,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    KeepOpen,
    Close,
    Stall,
}

impl Scripted {
    /// Starts a server that sends the reply that `script` returns for each request.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Scripted> {
        Scripted::start_on(Ipv4Addr::LOCALHOST.into(), script)
    }

    /// Starts a server as [`Scripted::start`] does, on this address of the machine.
    pub fn start_on(ip: IpAddr, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Scripted> {
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&requests));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                // An error means that the client closed the connection, which some tests do.
                std::thread::spawn(move || serve(stream, connection, &*script, &seen));
            }
        });
        Ok(Scripted { address, requests })
    }

    /// Starts a server that sends these replies in turn, across all connections, and repeats the
    /// last.
    pub fn replies(replies: impl IntoIterator<Item = Reply>) -> io::Result<Scripted> {
        let mut left: Vec<Reply> = replies.into_iter().collect();
        left.reverse();
        let left = Mutex::new(left);
        Scripted::start(move |_| {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            let next = if left.len() > 1 { left.pop() } else { left.last().cloned() };
            next.unwrap_or_else(Reply::close)
        })
    }

    /// Starts a server that accepts connections and never reads or answers.
    pub fn silent() -> io::Result<TcpListener> {
        // The kernel accepts the connections.
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests so far, in the order of their completion.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Request {
    /// Returns the request as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns method and path with the query, as in `GET /v1/session/list`.
    pub fn line(&self) -> String {
        let text = self.text();
        let line = text.lines().next().unwrap_or_default();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line).to_owned()
    }

    /// Returns all values of a header. The case of its name does not matter.
    pub fn header(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// Returns the body as text, as it was on the wire.
    pub fn body(&self) -> String {
        let text = self.text();
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }
}

impl Reply {
    /// Sends these bytes, and keeps the connection open for the next request.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
        Reply { bytes: bytes.into(), pause: Duration::ZERO, filler: 0, then: Then::KeepOpen }
    }

    /// Sends a complete answer with this status, these headers (each with its line end) and this
    /// body.
    pub fn http(status: u16, headers: &str, body: &str) -> Reply {
        let length = body.len();
        Reply::raw(format!("HTTP/1.1 {status} -\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// Sends a 200 with JSON, as Consul does.
    pub fn json(body: &str) -> Reply {
        Reply::http(200, "Content-Type: application/json\r\n", body)
    }

    /// Sends nothing and closes the connection.
    pub fn close() -> Reply {
        Reply::raw([]).then_close()
    }

    /// Sends nothing and keeps the connection open forever.
    pub fn stall() -> Reply {
        Reply::raw([]).then_stall()
    }

    /// Sends `count` spaces after the bytes, for bodies that are too large to store.
    #[must_use]
    pub fn filled(mut self, count: u64) -> Reply {
        self.filler = count;
        self
    }

    /// Pauses after each byte, as a server that is too slow.
    #[must_use]
    pub fn dripping(mut self, pause: Duration) -> Reply {
        self.pause = pause;
        self
    }

    /// Closes the connection afterwards.
    #[must_use]
    pub fn then_close(mut self) -> Reply {
        self.then = Then::Close;
        self
    }

    /// Sends nothing more afterwards and keeps the connection open forever.
    #[must_use]
    pub fn then_stall(mut self) -> Reply {
        self.then = Then::Stall;
        self
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: &dyn Fn(&Request) -> Reply,
    seen: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    while let Some(bytes) = read_request(&mut stream)? {
        let request = Request { bytes, connection };
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let reply = script(&request);
        if reply.pause.is_zero() {
            stream.write_all(&reply.bytes)?;
        } else {
            for byte in reply.bytes {
                stream.write_all(&[byte])?;
                sleep(reply.pause);
            }
        }
        io::copy(&mut io::repeat(b' ').take(reply.filler), &mut stream)?;
        match reply.then {
            Then::KeepOpen => {}
            Then::Close => return Ok(()),
            Then::Stall => loop {
                park();
            },
        }
    }
    Ok(())
}

/// Reads one request: the head, and a body by length or in chunks. Returns `None` at the end of the
/// connection.
fn read_request(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte)? {
            0 if bytes.is_empty() => return Ok(None),
            // A partial head, which a test might check.
            0 => return Ok(Some(bytes)),
            _ => bytes.push(byte[0]),
        }
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length:")) {
        let length = length.trim().parse().map_err(io::Error::other)?;
        stream.take(length).read_to_end(&mut bytes)?;
    } else if head.contains("\r\ntransfer-encoding:") {
        while !bytes.ends_with(b"0\r\n\r\n") && stream.read(&mut byte)? > 0 {
            bytes.push(byte[0]);
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn requests_are_recorded_and_answered_in_turn() {
        let server = Scripted::replies([Reply::json("[]"), Reply::http(500, "", "no").filled(2).then_close()]).unwrap();
        let create = "PUT /v1/session/create?dc=a HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\n\r\n{}";
        let list = "GET /v1/session/list HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = ask(server.address(), &format!("{create}{list}"));
        assert_eq!(
            answer,
            "HTTP/1.1 200 -\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]\
             HTTP/1.1 500 -\r\nContent-Length: 2\r\n\r\nno  "
        );
        // The last reply is repeated for all further requests, here on another connection.
        assert_eq!(ask(server.address(), list), "HTTP/1.1 500 -\r\nContent-Length: 2\r\n\r\nno  ");
        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        assert_eq!(requests[0].bytes, create.as_bytes());
        assert_eq!(requests[0].line(), "PUT /v1/session/create?dc=a");
        assert_eq!(requests[0].header("HOST"), ["x"]);
        assert_eq!(requests[0].body(), "{}");
        assert_eq!((requests[1].text(), requests[1].connection), (list.to_owned(), 0));
        assert_eq!(requests[2].connection, 1);
    }

    #[test]
    fn chunked_bodies_are_recorded_unchanged() {
        let server = Scripted::replies([Reply::close()]).unwrap();
        let request = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(ask(server.address(), request), "");
        assert_eq!(server.requests()[0].text(), request);
    }
}
