//! A panic at each failpoint of a relay closes one link and is counted; the other links continue.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zerosend_core::net::Address;
use zerosend_core::relay::{Destination, Relay, RelayOptions};

fn connect(relay: &Relay) -> TcpStream {
    let Some(Address::Tcp(address)) = relay.address() else { panic!("a TCP relay") };
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn echo(mut stream: &TcpStream, text: &[u8]) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text).is_ok() && stream.read_exact(&mut back).is_ok() && back == text
}

#[test]
fn a_panic_closes_one_link_only() {
    let _scenario = fail::FailScenario::setup();
    for place in ["relay::accept", "relay::turn"] {
        let mut options = RelayOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Destination::Echo);
        options.workers = 1;
        let relay = Relay::start(options).expect("a relay");
        let steady = connect(&relay);
        assert!(echo(&steady, b"before"), "{place}");

        fail::cfg(place, "1*panic(injected)->off").expect("a fail point");
        // The panic hits the turn of either link: that of the first one if it still has an event.
        let second = connect(&relay);
        let served = [echo(&second, b"second"), echo(&steady, b"after")];
        fail::remove(place);
        assert_eq!(served.iter().filter(|served| **served).count(), 1, "{place}: {served:?}");
        let next = connect(&relay);
        assert!(echo(&next, b"next"), "{place}");
        assert_eq!(relay.stats().panics, 1, "{place}");

        for stream in [&steady, &second, &next] {
            // The link of the turn that panicked is already reset.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let start = Instant::now();
        while relay.stats().connections > 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{place}: {:?}", relay.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
        let (sender, exited) = mpsc::channel();
        relay.on_exit(move || sender.send(()).expect("a receiver"));
        // A panic does not lose the drain message.
        fail::cfg("relay::message", "1*panic(injected)->off").expect("a fail point");
        relay.close(Duration::from_secs(20));
        exited.recv_timeout(Duration::from_secs(20)).expect("the end");
        fail::remove("relay::message");
    }
}
