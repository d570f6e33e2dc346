//! Ports that no other test has: tests run side by side, in one process or in many.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that follow each other, ours as long as this lives.
pub struct Ports {
    first: u16,
    last: u16,
    next: AtomicU16,
    /// One for each block, locked; the kernel lets go of them whatever becomes of this process.
    _locks: Vec<File>,
}

/// Below the range from which the kernel takes ports for outgoing connections.
const FROM: u16 = 12_000;
const BLOCKS: u16 = 40;
const BLOCK: u16 = 500;
/// The rest is for media, four ports for each call: a hundred calls in a single block.
const SINGLE: u16 = 100;

impl Ports {
    /// As many as a test needs.
    pub fn claim() -> Self {
        Self::claim_blocks(1)
    }

    /// With media ports for a thousand calls at once.
    pub fn claim_for_many_calls() -> Self {
        Self::claim_blocks(9)
    }

    fn claim_blocks(blocks: u16) -> Self {
        let folder = std::env::temp_dir().join("capconduit-test-ports");
        fs::create_dir_all(&folder).unwrap();
        for start in 0..=BLOCKS - blocks {
            let locks = (start..start + blocks).map_while(|block| {
                let lock = File::create(folder.join(block.to_string())).unwrap();
                lock.try_lock().is_ok().then_some(lock)
            });
            let locks: Vec<File> = locks.collect();
            let first = FROM + start * BLOCK;
            let last = first + blocks * BLOCK - 1;
            if locks.len() == usize::from(blocks) && is_free(first, last) {
                return Self { first, last, next: AtomicU16::new(first), _locks: locks };
            }
        }
        panic!("there are no {blocks} blocks of ports side by side that nobody has taken");
    }

    /// One more port that nobody listens on.
    pub fn single(&self) -> u16 {
        let port = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(port < self.first + SINGLE, "this test uses more ports than its block has");
        port
    }

    /// First and last port for media.
    pub const fn media(&self) -> (u16, u16) {
        (self.first + SINGLE, self.last)
    }
}

fn is_free(first: u16, last: u16) -> bool {
    (first..first + SINGLE).all(|port| {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
    }) && (first + SINGLE..=last).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}
