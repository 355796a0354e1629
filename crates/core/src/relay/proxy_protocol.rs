//! The header of the PROXY protocol of HAProxy (`proxy-protocol.txt`), which tells a target the address of its client.

use std::net::SocketAddr;

use super::options::ProxyProtocol;

/// The header. `addresses`: that of the client and the one it connected to; `None` for clients of Unix sockets.
pub fn proxy_header(protocol: ProxyProtocol, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // A socket that listens on `::` reports IPv4 clients as IPv4-mapped IPv6 addresses.
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let addresses = addresses.map(|(client, local)| (canonical(client), canonical(local)));
    match protocol {
        ProxyProtocol::V1 => match addresses {
            Some((client, local)) => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {} {} {} {}\r\n", client.ip(), local.ip(), client.port(), local.port())
                    .into_bytes()
            }
            None => b"PROXY UNKNOWN\r\n".to_vec(),
        },
        ProxyProtocol::V2 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            // Version 2, and the command: PROXY with addresses, LOCAL without.
            header.push(if addresses.is_some() { 0x21 } else { 0x20 });
            let mut rest = Vec::new();
            let family = match addresses {
                Some((SocketAddr::V4(client), SocketAddr::V4(local))) => {
                    rest.extend_from_slice(&client.ip().octets());
                    rest.extend_from_slice(&local.ip().octets());
                    0x11
                }
                Some((SocketAddr::V6(client), SocketAddr::V6(local))) => {
                    rest.extend_from_slice(&client.ip().octets());
                    rest.extend_from_slice(&local.ip().octets());
                    0x21
                }
                _ => 0,
            };
            if let Some((client, local)) = addresses.filter(|_| family != 0) {
                rest.extend_from_slice(&client.port().to_be_bytes());
                rest.extend_from_slice(&local.port().to_be_bytes());
            }
            header.push(family);
            header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
            header.extend_from_slice(&rest);
            header
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_versions() {
        let pair = |client: &str, local: &str| Some((client.parse().expect("one"), local.parse().expect("two")));
        let v1 = |addresses| String::from_utf8(proxy_header(ProxyProtocol::V1, addresses)).expect("text");
        assert_eq!(v1(pair("10.0.0.1:1000", "10.0.0.2:80")), "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n");
        assert_eq!(
            v1(pair("[::ffff:10.0.0.1]:1000", "[::ffff:10.0.0.2]:80")),
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"
        );
        assert_eq!(
            v1(pair("[2001:db8::1]:1000", "[2001:db8::2]:80")),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n"
        );
        assert_eq!(v1(None), "PROXY UNKNOWN\r\n");
        let v2 = proxy_header(ProxyProtocol::V2, pair("10.0.0.1:258", "10.0.0.2:80"));
        assert_eq!(&v2[..12], b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(&v2[12..], [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        assert_eq!(proxy_header(ProxyProtocol::V2, pair("[::1]:1", "[::1]:2")).len(), 16 + 36);
        assert_eq!(&proxy_header(ProxyProtocol::V2, None)[12..], [0x20, 0, 0, 0]);
    }
}
