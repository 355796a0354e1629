//! `vmsplice(2)` without `SPLICE_F_GIFT` refers to the pages too: the reader gets bytes that are written to them after the call.
//!
//! ```text
//! cargo run -q -p zerosend-core --example vmsplice_alias
//! ```

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use zerosend_sys::memory::Pages;
use zerosend_sys::pipe;

fn main() -> Result<(), Box<dyn Error>> {
    for gift in [false, true] {
        let (read, write) = pipe::new()?;
        let mut pages = Pages::new(4096)?;
        pages.copy_in(0, b"before");
        let count = pipe::vmsplice(write.as_fd(), &[pages.span(0, 4096)], gift)?;
        pages.copy_in(0, b"after!");
        let mut bytes = [0; 6];
        File::from(read).read_exact(&mut bytes)?;
        let flag = if gift { "with SPLICE_F_GIFT" } else { "without it" };
        println!(
            "{flag}: {count} bytes in the pipe, modified after the call; the reader gets '{}'",
            String::from_utf8_lossy(&bytes)
        );
    }
    Ok(())
}
