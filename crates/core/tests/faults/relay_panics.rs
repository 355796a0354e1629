//! One panic at each place of a relay: it ends one link and is counted, and the others go on.

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
fn a_panic_ends_one_link_and_no_other() {
    let _scenario = fail::FailScenario::setup();
    for place in ["relay::accept", "relay::turn"] {
        let mut options = RelayOptions::new(Address::Tcp(([127, 0, 0, 1], 0).into()), Destination::Echo);
        options.workers = 1;
        let relay = Relay::start(options).expect("a relay");
        let steady = connect(&relay);
        assert!(echo(&steady, b"before"), "{place}");

        fail::cfg(place, "1*panic(injected)->off").expect("a fail point");
        // The turn that panics is that of either link: of the first, when an event of its socket is still under way.
        let second = connect(&relay);
        let served = [echo(&second, b"second"), echo(&steady, b"after")];
        fail::remove(place);
        assert_eq!(served.iter().filter(|served| **served).count(), 1, "{place}: {served:?}");
        let next = connect(&relay);
        assert!(echo(&next, b"next"), "{place}");
        assert_eq!(relay.stats().panics, 1, "{place}");

        for stream in [&steady, &second, &next] {
            // The one that panicked is reset.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let began = Instant::now();
        while relay.stats().connections > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "{place}: {:?}", relay.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
        let (tell, hears) = mpsc::channel();
        relay.on_exit(move || tell.send(()).expect("a reader"));
        // A panic does not take the message that ends it.
        fail::cfg("relay::message", "1*panic(injected)->off").expect("a fail point");
        relay.close(Duration::from_secs(20));
        hears.recv_timeout(Duration::from_secs(20)).expect("the end");
        fail::remove("relay::message");
    }
}
