//! A backend and measuring clients for relays. Used by `bench/relays.ts`.
//!
//! `relay_load backend`: listens, prints `listening <port>`, and serves until its standard input ends.
//! `relay_load bulk <port> <connections> <bytes>`: sends that many bytes over each connection.
//! `relay_load exchange <port> <connections> <seconds>`: repeatedly sends 1 KiB over each connection and waits for 1 KiB.
//! `relay_load idle <port> <connections>`: exchanges one message over each connection and keeps it open until standard input ends.
//!
//! Clients print one line of JSON. The first byte of a connection selects the mode: `B` for bulk, whose bytes are counted, and the
//! count is sent back (8 bytes, little endian) at the end. The bytes of other connections are sent back.
//!
//! Bulk is sent by `sendfile(2)` from memory and received with `MSG_TRUNC` (`tcp(7)`), so that the relay is the bottleneck.

use std::collections::HashMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, recv};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const BUFFER: usize = 256 * 1024;
const PIECE: usize = 1024 * 1024;
const MESSAGE: usize = 1024;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Outcome<u64> { Ok(arguments.get(at).ok_or("an argument is missing")?.parse()?) };
    match arguments.first().map(String::as_str) {
        Some("backend") => backend(),
        Some("bulk") => bulk(number(1)? as u16, number(2)? as usize, number(3)?),
        Some("exchange") => exchange(number(1)? as u16, number(2)? as usize, Duration::from_secs(number(3)?)),
        Some("idle") => idle(number(1)? as u16, number(2)? as usize),
        _ => Err("usage: relay_load <backend|bulk|exchange|idle> ...".into()),
    }
}

struct Client {
    stream: TcpStream,
    is_bulk: Option<bool>,
    count: u64,
    /// Bytes to echo that the socket has not accepted yet.
    owed: Vec<u8>,
}

fn backend() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096)?)?;
    listener.set_nonblocking(true)?;
    println!("listening {}", listener.local_addr()?.port());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = [EpollEvent::empty(); 256];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            if event.data() == u64::MAX {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = stream.as_raw_fd() as u64;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
                    clients.insert(key, Client { stream, is_bulk: None, count: 0, owed: Vec::new() });
                }
                continue;
            }
            let Some(client) = clients.get_mut(&event.data()) else { continue };
            if !serve(client, &mut buffer) {
                clients.remove(&event.data());
                continue;
            }
            let mut wanted = EpollFlags::EPOLLIN;
            wanted.set(EpollFlags::EPOLLOUT, !client.owed.is_empty());
            if wanted.contains(EpollFlags::EPOLLOUT) || event.events().contains(EpollFlags::EPOLLOUT) {
                epoll.modify(&client.stream, &mut EpollEvent::new(wanted, event.data()))?;
            }
        }
    }
}

/// Handles one event; false at the end of the connection.
fn serve(client: &mut Client, buffer: &mut [u8]) -> bool {
    if !client.owed.is_empty() {
        match client.stream.write(&client.owed) {
            Ok(count) => drop(client.owed.drain(..count)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    let read = if client.is_bulk == Some(true) {
        recv(client.stream.as_raw_fd(), &mut buffer[..], MsgFlags::MSG_TRUNC).map_err(Into::into)
    } else {
        client.stream.read(buffer)
    };
    match read {
        Ok(0) => {
            if client.is_bulk == Some(true) {
                let _ = client.stream.write_all(&client.count.to_le_bytes());
            }
            false
        }
        Ok(count) => {
            client.count += count as u64;
            if *client.is_bulk.get_or_insert(buffer[0] == b'B') {
                return true;
            }
            if client.owed.is_empty() {
                match client.stream.write(&buffer[..count]) {
                    Ok(written) => client.owed.extend_from_slice(&buffer[written..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        client.owed.extend_from_slice(&buffer[..count]);
                    }
                    Err(_) => return false,
                }
            } else {
                client.owed.extend_from_slice(&buffer[..count]);
            }
            true
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn connect(port: u16, connections: usize) -> Outcome<Vec<TcpStream>> {
    (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            Ok(stream)
        })
        .collect()
}

fn bulk(port: u16, connections: usize, bytes: u64) -> Outcome {
    let streams = connect(port, connections)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for (at, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true)?;
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLOUT, at as u64))?;
    }
    let mut memory = std::fs::File::from(memfd_create(c"load", MFdFlags::empty())?);
    memory.write_all(&vec![b'B'; PIECE])?;
    let mut left = vec![bytes; connections];
    let mut open = connections;
    let mut events = [EpollEvent::empty(); 64];
    let begun = Instant::now();
    while open > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            let at = event.data() as usize;
            let stream = &mut &streams[at];
            let most = left[at].min(PIECE as u64) as usize;
            match sendfile(*stream, &memory, Some(&mut 0), most) {
                Ok(count) => left[at] -= count as u64,
                Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            if left[at] == 0 {
                epoll.delete(&streams[at])?;
                stream.shutdown(Shutdown::Write)?;
                open -= 1;
            }
        }
    }
    for stream in &streams {
        stream.set_nonblocking(false)?;
        let mut count = [0; 8];
        (&mut &*stream).read_exact(&mut count)?;
        if u64::from_le_bytes(count) != bytes {
            return Err(format!("received {} of {bytes} bytes", u64::from_le_bytes(count)).into());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(r#"{{"bytes":{},"seconds":{seconds}}}"#, bytes * connections as u64);
    Ok(())
}

fn exchange(port: u16, connections: usize, duration: Duration) -> Outcome {
    let streams = connect(port, connections)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let message = [b'E'; MESSAGE];
    let mut buffer = vec![0; MESSAGE];
    let mut missing = vec![MESSAGE; connections];
    let mut since = vec![Instant::now(); connections];
    let mut waits: Vec<f64> = Vec::new();
    for (at, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true)?;
        epoll.add(stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        (&mut &*stream).write_all(&message)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let count = epoll.wait(&mut events, EpollTimeout::from(1000_u16))?;
        if count == 0 {
            return Err("no answer for a second".into());
        }
        for event in &events[..count] {
            let at = event.data() as usize;
            let stream = &mut &streams[at];
            match stream.read(&mut buffer[..missing[at]]) {
                Ok(0) => return Err("the connection has ended".into()),
                Ok(count) => missing[at] -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if missing[at] == 0 {
                waits.push(since[at].elapsed().as_secs_f64() * 1000.0);
                since[at] = Instant::now();
                missing[at] = MESSAGE;
                stream.write_all(&message)?;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    let at = |fraction: f64| waits.get((waits.len() as f64 * fraction) as usize).copied().unwrap_or_default();
    println!(r#"{{"exchanges":{},"seconds":{seconds},"p50":{},"p99":{}}}"#, waits.len(), at(0.5), at(0.99));
    Ok(())
}

fn idle(port: u16, connections: usize) -> Outcome {
    let mut streams = connect(port, connections)?;
    for stream in &mut streams {
        stream.write_all(&[b'E'; MESSAGE])?;
        stream.read_exact(&mut [0; MESSAGE])?;
    }
    println!(r#"{{"connections":{connections}}}"#);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
