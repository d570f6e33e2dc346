//! Ports that no other test has: tests run side by side, in one process or in many.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// A block of ports, ours as long as this lives.
pub struct Ports {
    first: u16,
    next: AtomicU16,
    /// Locked; the kernel lets go of it whatever becomes of this process.
    _lock: File,
}

/// Below the range from which the kernel takes ports for outgoing connections.
const FROM: u16 = 12_000;
const BLOCKS: u16 = 40;
const BLOCK: u16 = 500;
/// The rest is for media: four ports for each of a hundred calls.
const SINGLE: u16 = 100;

impl Ports {
    pub fn claim() -> Self {
        let folder = std::env::temp_dir().join("capconduit-test-ports");
        fs::create_dir_all(&folder).unwrap();
        for block in 0..BLOCKS {
            let lock = File::create(folder.join(block.to_string())).unwrap();
            let first = FROM + block * BLOCK;
            if lock.try_lock().is_ok() && is_free(first) {
                return Self { first, next: AtomicU16::new(first), _lock: lock };
            }
        }
        panic!("all blocks of ports are taken");
    }

    /// One more port that nobody listens on.
    pub fn single(&self) -> u16 {
        let port = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(port < self.first + SINGLE, "this test uses more ports than its block has");
        port
    }

    /// First and last port for media.
    pub const fn media(&self) -> (u16, u16) {
        (self.first + SINGLE, self.first + BLOCK - 1)
    }
}

fn is_free(first: u16) -> bool {
    (first..first + SINGLE).all(|port| {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
    }) && (first + SINGLE..first + BLOCK).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}
