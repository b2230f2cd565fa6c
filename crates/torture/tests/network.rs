//! The rules of the network do what they say. These tests need root, or `unshare --user
//! --map-root-user`.

use anyhow::{Context, Result, ensure};
use consul_session_torture::host::Host;
use consul_session_torture::net::{Cut, Effect, Network};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 8500;
const NOTHING: [u8; 0] = [];
/// Longer than anything takes here that happens at all.
const LIMIT: Duration = Duration::from_secs(10);
/// The time in which a packet arrives that was not dropped.
const SOON: Duration = Duration::from_millis(300);

/// Two hosts: a server and a client.
struct Pair {
    server: Host,
    client: Host,
    network: Network,
}

fn pair() -> Result<Pair> {
    let network = Network::new(1)?;
    Ok(Pair { server: network.host("server", 1)?, client: network.host("client", 2)?, network })
}

fn udp(host: &Host) -> Result<UdpSocket> {
    host.run(|| {
        let socket = UdpSocket::bind((host.address(), PORT))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    })
}

/// Sends packets with their numbers from one to the other, and returns those that arrive.
fn sent(from: &UdpSocket, to: &UdpSocket, count: u8) -> Result<Vec<u8>> {
    for number in 0..count {
        from.send_to(&[number], to.local_addr()?)?;
    }
    let mut arrived = Vec::new();
    let mut packet = [0];
    loop {
        match to.recv_from(&mut packet) {
            Ok(_) => arrived.push(packet[0]),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => return Ok(arrived),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn network_delivers_until_a_rule_blocks_one_direction() -> Result<()> {
    let Pair { server, client, network } = pair()?;
    let (server, client) = (udp(&server)?, udp(&client)?);
    assert_eq!(sent(&server, &client, 2)?, [0, 1]);
    let rule = network.rule([1], [2], Effect::Block);
    assert_eq!(sent(&server, &client, 2)?, NOTHING);
    assert_eq!(sent(&client, &server, 2)?, [0, 1], "the other direction");
    drop(rule);
    assert_eq!(sent(&server, &client, 2)?, [0, 1]);
    Ok(())
}

#[test]
fn rules_of_the_same_hosts_end_one_by_one() -> Result<()> {
    let Pair { server, client, network } = pair()?;
    let (server, client) = (udp(&server)?, udp(&client)?);
    let first = network.rule([1], [2], Effect::Block);
    let second = network.rule([1, 3], [2, 3], Effect::Block);
    drop(first);
    assert_eq!(sent(&server, &client, 2)?, NOTHING);
    drop(second);
    assert_eq!(sent(&server, &client, 2)?, [0, 1]);
    Ok(())
}

#[test]
fn delay_keeps_the_order_and_adds_up() -> Result<()> {
    let Pair { server, client, network } = pair()?;
    let (server, client) = (udp(&server)?, udp(&client)?);
    let _rules = [50, 100].map(|delay| network.rule([1], [2], Effect::Delay(Duration::from_millis(delay))));
    let begin = Instant::now();
    server.send_to(b"x", client.local_addr()?)?;
    client.recv_from(&mut [0])?;
    ensure!(begin.elapsed() >= Duration::from_millis(150));
    assert_eq!(sent(&server, &client, 100)?, (0..100).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn loss_drops_its_share_and_the_seed_chooses_which() -> Result<()> {
    let run = || {
        let Pair { server, client, network } = pair()?;
        let (server, client) = (udp(&server)?, udp(&client)?);
        let _rule = network.rule([1], [2], Effect::Lose(0.2));
        sent(&server, &client, 200)
    };
    let arrived: Vec<u8> = run()?;
    ensure!((130..190).contains(&arrived.len()), "{}", arrived.len());
    assert_eq!(run()?, arrived);
    Ok(())
}

/// A server that answers each byte with 1000 bytes. Ends when the client does.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0])? == 1 {
        stream.write_all(&[7; 1000])?;
    }
    Ok(())
}

#[test]
fn cut_connection_ends_in_the_middle_of_a_response_for_both_sides() -> Result<()> {
    let Pair { server, client, network } = pair()?;
    let address = SocketAddr::from((server.address(), PORT));
    let listener = server.run(|| Ok(TcpListener::bind(address)?))?;
    let (ends, server_ends) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ends = ends.clone();
            std::thread::spawn(move || ends.send(answer(stream).map_err(|error| error.kind())));
        }
    });
    // What arrives of a response, and how it ends.
    let ask = |stream: &mut TcpStream| -> Result<(usize, Option<ErrorKind>)> {
        stream.write_all(b"?")?;
        let mut response = [0; 1000];
        let mut length = 0;
        while length < response.len() {
            match stream.read(&mut response[length..]) {
                Ok(read) => length += read,
                Err(error) => return Ok((length, Some(error.kind()))),
            }
        }
        Ok((length, None))
    };
    let connect = || {
        client.run(|| {
            let stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            Ok(stream)
        })
    };
    let mut streams = [connect()?, connect()?, connect()?];
    assert_eq!(ask(&mut streams[0])?, (1000, None));
    let rule = network.rule([1], [2], Effect::Cut(Cut { port: PORT, after: 1300, connections: 2 }));
    assert_eq!(ask(&mut streams[0])?, (1000, None));
    assert_eq!(ask(&mut streams[0])?, (300, Some(ErrorKind::ConnectionReset)));
    assert_eq!(server_ends.recv_timeout(LIMIT)?, Err(ErrorKind::ConnectionReset));
    assert_eq!(ask(&mut streams[1])?, (1000, None));
    assert_eq!(ask(&mut streams[1])?, (300, Some(ErrorKind::ConnectionReset)));
    assert_eq!(rule.cuts(), 2);
    // Those were all.
    assert_eq!(ask(&mut streams[2])?, (1000, None));
    assert_eq!(ask(&mut streams[2])?, (1000, None));
    Ok(())
}

#[test]
fn programs_and_tasks_of_a_host_are_in_its_network() -> Result<()> {
    let Pair { server, client, network: _network } = pair()?;
    let listener = server.run(|| Ok(TcpListener::bind((server.address(), PORT))?))?;
    let mut command = Command::new("bash");
    command.args(["-c", "exec 3<>/dev/tcp/10.77.0.1/8500 && echo program >&3"]).stdin(Stdio::null());
    let mut program = client.spawn(command)?;
    let mut text = String::new();
    let (mut stream, from) = listener.accept()?;
    stream.read_to_string(&mut text)?;
    assert_eq!((text.as_str(), from.ip()), ("program\n", client.address().into()));
    ensure!(program.wait()?.success());
    listener.set_nonblocking(false)?;
    let task = client.runtime().spawn(tokio::net::TcpStream::connect(listener.local_addr()?));
    assert_eq!(listener.accept()?.1.ip(), client.address());
    client.runtime().block_on(task)??;
    Ok(())
}

#[test]
fn programs_of_a_host_end_with_it() -> Result<()> {
    let Pair { server, client, network: _network } = pair()?;
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    let mut program = client.spawn(command)?;
    drop(client);
    let status = program.wait()?;
    ensure!(status.code().is_none(), "{status}");
    // The other host is still there.
    server.run(|| Ok(UdpSocket::bind((server.address(), PORT))?)).context("the other host")?;
    Ok(())
}
