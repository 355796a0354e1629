//! The header of the PROXY protocol, checked with a separate parser that follows `proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerosend_core::relay::{ProxyProtocol, proxy_header};

use super::take;

pub fn proxy_protocol(data: &[u8]) {
    let ([options, a, b, c, d], rest) = take::<5>(data);
    let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let (client, rest) = address(options, rest);
    let (local, _) = address(options >> 2, rest);
    let known = options & 16 == 0;
    let addresses = known.then(|| (SocketAddr::new(client, ports.0), SocketAddr::new(local, ports.1)));
    // A socket has both addresses in the same family.
    let expected = addresses
        .map(|(client, local)| [client, local].map(|one| SocketAddr::new(one.ip().to_canonical(), one.port())))
        .filter(|[client, local]| client.is_ipv4() == local.is_ipv4());
    if known && expected.is_none() {
        return;
    }
    let v1 = proxy_header(ProxyProtocol::V1, addresses);
    assert_eq!(read_v1(&v1), expected, "{}", v1.escape_ascii());
    let v2 = proxy_header(ProxyProtocol::V2, addresses);
    assert_eq!(read_v2(&v2), expected, "{}", v2.escape_ascii());
}

fn address(kind: u8, data: &[u8]) -> (IpAddr, &[u8]) {
    let (bytes, rest) = take::<16>(data);
    let ip = match kind & 3 {
        0 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        1 => IpAddr::V6(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_ipv6_mapped()),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)),
    };
    (ip, rest)
}

/// Section 2.1: one line of at most 107 bytes.
fn read_v1(header: &[u8]) -> Option<[SocketAddr; 2]> {
    assert!(header.len() <= 107 && header.ends_with(b"\r\n"));
    let line = std::str::from_utf8(&header[..header.len() - 2]).expect("ASCII");
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN"] => None,
        ["PROXY", family, from, to, from_port, to_port] => {
            let [from, to]: [IpAddr; 2] = [from, to].map(|ip| ip.parse().expect("an address"));
            assert!(from.is_ipv4() == to.is_ipv4() && *family == if from.is_ipv4() { "TCP4" } else { "TCP6" });
            let [from_port, to_port] = [from_port, to_port].map(|port| port.parse().expect("a port"));
            Some([SocketAddr::new(from, from_port), SocketAddr::new(to, to_port)])
        }
        _ => panic!("invalid v1 header: {line:?}"),
    }
}

/// Section 2.2: 12 bytes of signature, version and command, family, length, addresses.
fn read_v2(header: &[u8]) -> Option<[SocketAddr; 2]> {
    assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    assert_eq!(header.len(), 16 + length);
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    match (header[12], header[13]) {
        // LOCAL, or PROXY with an unspecified family: the receiver uses the addresses of the connection itself.
        (0x20, _) | (0x21, 0) => None,
        (0x21, 0x11) => {
            assert_eq!(length, 12);
            let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes"));
            Some([SocketAddr::new(ip(16), port(24)), SocketAddr::new(ip(20), port(26))])
        }
        (0x21, 0x21) => {
            assert_eq!(length, 36);
            let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen bytes"));
            Some([SocketAddr::new(ip(16), port(48)), SocketAddr::new(ip(32), port(50))])
        }
        (command, family) => panic!("invalid v2 header: {command:#x} {family:#x}"),
    }
}
