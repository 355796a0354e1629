//! Bounds on the work per turn and in total.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::server_support::{Running, read_response, request};

/// A client that sends `first`, then `again` repeatedly, as fast as the server reads it.
fn flood(running: &Running, first: &[u8], again: Vec<u8>, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) {
    let mut stream = running.connect();
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    stream.write_all(first).expect("sent");
    let (stop, sent) = (stop.clone(), sent.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match stream.write(&again) {
                Ok(count) => drop(sent.fetch_add(count as u64, Ordering::Relaxed)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        let _ = stream.read(&mut [0; 1000]);
    });
}

#[test]
fn flooding_clients_do_not_delay_others_and_are_bounded() {
    let running = Running::new(|options, _| {
        options.limits.body_bytes = 1 << 40;
        options.limits.head_timeout = Duration::from_secs(5);
    });
    let head = "GET /a.txt HTTP/1.1\r\nHost: x\r\n";
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
    let rest = vec![b'x'; 1 << 20];
    for (first, again) in [
        ("BAD\r\n\r\n".to_owned(), rest.clone()),
        (format!("{head}Connection: close\r\n\r\n"), rest.clone()),
        (format!("{head}Content-Length: 1000000000000\r\n\r\n"), rest),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), chunk),
    ] {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        for _ in 0..4 {
            flood(&running, first.as_bytes(), again.clone(), &stop, &sent);
        }
        let mut times: Vec<_> = (0..20)
            .map(|_| {
                let began = Instant::now();
                let mut stream = running.connect();
                stream.write_all(request("/a.txt", "").as_bytes()).expect("sent");
                assert_eq!(read_response(&mut stream).1, b"0123456789");
                began.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        times.sort_unstable();
        assert!(times[10] < Duration::from_millis(250), "{first:?}: median {:?}, last {:?}", times[10], times[19]);
        if !first.contains("1000000000000") && !first.contains("chunked") {
            let sent = sent.load(Ordering::Relaxed) / 4;
            assert!(sent < 64 << 20, "{first:?}: {sent} bytes were read from each");
        }
    }
}
