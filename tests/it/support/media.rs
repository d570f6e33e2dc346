//! Callers and clients who talk: audio over real sockets, fifty packets a second, and
//! how long it was quiet in between.
//!
//! Callers share one port and clients another; a packet says which call it belongs to,
//! and clients send each one back, so that what comes back has gone through Asterisk
//! twice. One more call goes from port to port, past Asterisk: what it misses is this
//! machine's doing and not the switch's.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::service::Service;

const PACKET: Duration = Duration::from_millis(20);
/// The call that goes past Asterisk.
const CONTROL: u32 = 0;
const HEADER: usize = 12;
const SAMPLES: usize = 160;
/// Marks our packets: the beginning of the payload of each.
const MARK: [u8; 4] = *b"call";
/// Sockets are asked again after this: a stopped line is stopped soon.
const NAP: Duration = Duration::from_millis(1);

pub struct Media {
    /// Where callers and clients want their audio.
    pub caller_port: u16,
    pub client_port: u16,
    lines: Arc<Mutex<HashMap<u32, Line>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// One call's audio.
struct Line {
    target: SocketAddr,
    began: Instant,
    sent: u32,
    caller: Ear,
    client: Ear,
}

/// What was heard at one end.
#[derive(Clone, Debug)]
pub struct Ear {
    /// When the last packet came, or else when the line began.
    last: Instant,
    packets: u32,
    /// Longer than it takes until a packet is missed.
    silences: Vec<Silence>,
}

/// Nothing came in between: before the first packet, between two, or since the last.
#[derive(Clone, Copy, Debug)]
struct Silence {
    from: Instant,
    until: Instant,
}

/// What became of one call's audio.
#[derive(Clone, Debug)]
pub struct Heard {
    sent: u32,
    caller: Ear,
    client: Ear,
}

// === impl Media ===

impl Media {
    pub fn start(service: &Service) -> Self {
        let bind = || {
            let port = service.ports.single();
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            (port, socket)
        };
        let ((caller_port, caller), (client_port, client)) = (bind(), bind());
        let lines = Arc::new(Mutex::new(HashMap::new()));
        let over = Arc::new(AtomicBool::new(false));
        let sender = caller.try_clone().unwrap();
        let threads = vec![
            std::thread::spawn({
                let (lines, over) = (lines.clone(), over.clone());
                move || send(&sender, &lines, &over)
            }),
            std::thread::spawn({
                let (lines, over) = (lines.clone(), over.clone());
                move || listen(&caller, &lines, &over, |line| &mut line.caller, |_, _| {})
            }),
            std::thread::spawn({
                let (lines, over) = (lines.clone(), over.clone());
                let echo = client.try_clone().unwrap();
                move || {
                    let back = |packet: &[u8], from| drop(echo.send_to(packet, from));
                    listen(&client, &lines, &over, |line| &mut line.client, back);
                }
            }),
        ];
        let media = Self { caller_port, client_port, lines, over, threads };
        media.talk(CONTROL, client_port);
        media
    }

    /// Begins to send a call's audio to a port of Asterisk's.
    pub fn talk(&self, call: u32, port: u16) {
        assert!(call == CONTROL || port != self.client_port);
        let began = Instant::now();
        let line = Line {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            began,
            sent: 0,
            caller: Ear::since(began),
            client: Ear::since(began),
        };
        assert!(self.lines.lock().unwrap().insert(call, line).is_none(), "a call has one line");
    }

    /// Ends a call's audio, before the call itself is ended: what was heard of it, and
    /// for how long nothing has been heard by now.
    pub fn hush(&self, call: u32) -> Heard {
        let heard = self.heard(call);
        self.left(call);
        heard
    }

    /// Ends the audio of a call whose other side has hung up: that nothing is heard any
    /// more is as it should be.
    pub fn left(&self, call: u32) -> Heard {
        let line = self.lines.lock().unwrap().remove(&call).expect("it talks");
        Heard { sent: line.sent, caller: line.caller, client: line.client }
    }

    /// What was heard of a call so far, and for how long nothing has been heard by now.
    pub fn heard(&self, call: u32) -> Heard {
        let lines = self.lines.lock().unwrap();
        let (line, now) = (&lines[&call], Instant::now());
        Heard { sent: line.sent, caller: line.caller.until(now), client: line.client.until(now) }
    }

    /// What was heard of the call past Asterisk.
    pub fn control(&self) -> Heard {
        self.heard(CONTROL)
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Ear {
    const fn since(began: Instant) -> Self {
        Self { last: began, packets: 0, silences: Vec::new() }
    }

    fn hear(&mut self, at: Instant) {
        self.note_silence(at);
        self.last = at;
        self.packets += 1;
    }

    /// The same, with the silence that lasts.
    fn until(&self, now: Instant) -> Self {
        let mut ear = self.clone();
        ear.note_silence(now);
        ear
    }

    fn note_silence(&mut self, until: Instant) {
        if until.saturating_duration_since(self.last) > PACKET * 2 {
            self.silences.push(Silence { from: self.last, until });
        }
    }
}

impl Heard {
    /// How many packets one of the two missed, the one who missed more.
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.caller.packets.min(self.client.packets))
    }

    /// The longest silence at either end; none that was long enough to miss anything is zero.
    pub fn longest(&self) -> Duration {
        self.silences().map(Silence::length).max().unwrap_or_default()
    }

    /// The longest that was over after `since`, without what the call past Asterisk missed
    /// at those very moments: that was this machine's doing.
    pub fn longest_beside(&self, control: &Self, since: Instant) -> Duration {
        let own = |silence: &Silence| silence.length().saturating_sub(control.missed_in(silence));
        let late = self.silences().filter(|silence| silence.until > since);
        late.map(own).max().unwrap_or_default()
    }

    /// How long nothing came that was due, within a silence of another's.
    fn missed_in(&self, other: &Silence) -> Duration {
        let shared = |own: &Silence| {
            let (from, until) = (own.from.max(other.from), own.until.min(other.until));
            until.saturating_duration_since(from).saturating_sub(PACKET)
        };
        let at = |ear: &Ear| ear.silences.iter().map(shared).sum::<Duration>();
        at(&self.caller).max(at(&self.client))
    }

    fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.caller.silences.iter().chain(&self.client.silences)
    }
}

impl Silence {
    fn length(&self) -> Duration {
        self.until - self.from
    }
}

/// Each call's next packet when it is due, until it is over.
fn send(socket: &UdpSocket, lines: &Mutex<HashMap<u32, Line>>, over: &AtomicBool) {
    let mut due = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (call, line) in lines.lock().unwrap().iter_mut() {
            if now >= line.began + PACKET * line.sent {
                due.push((line.target, packet(*call, line.sent)));
                line.sent += 1;
            }
        }
        for (target, packet) in due.drain(..) {
            // A port that Asterisk has closed: the call is over.
            drop(socket.send_to(&packet, target));
        }
        std::thread::sleep(NAP);
    }
}

fn listen(
    socket: &UdpSocket,
    lines: &Mutex<HashMap<u32, Line>>,
    over: &AtomicBool,
    ear: impl Fn(&mut Line) -> &mut Ear,
    then: impl Fn(&[u8], SocketAddr),
) {
    let mut buffer = [0; 2_048];
    while !over.load(Ordering::Relaxed) {
        let Ok((read, from)) = socket.recv_from(&mut buffer) else { continue };
        let (at, packet) = (Instant::now(), &buffer[..read]);
        let Some(call) = call_of(packet) else { continue };
        if let Some(line) = lines.lock().unwrap().get_mut(&call) {
            ear(line).hear(at);
        }
        then(packet, from);
    }
}

/// RTP with µ-law audio that nobody would like to hear.
fn packet(call: u32, number: u32) -> [u8; HEADER + SAMPLES] {
    let mut packet = [0xff; HEADER + SAMPLES];
    packet[..2].copy_from_slice(&[0x80, 0]);
    packet[2..4].copy_from_slice(&u16::try_from(number & 0xffff).unwrap().to_be_bytes());
    packet[4..8].copy_from_slice(&number.wrapping_mul(160).to_be_bytes());
    packet[8..12].copy_from_slice(&(0x5000_0000 | call).to_be_bytes());
    packet[HEADER..HEADER + 4].copy_from_slice(&MARK);
    packet[HEADER + 4..HEADER + 8].copy_from_slice(&call.to_be_bytes());
    packet
}

fn call_of(packet: &[u8]) -> Option<u32> {
    let payload = packet.get(HEADER..HEADER + 8)?;
    let call = payload.strip_prefix(&MARK)?;
    Some(u32::from_be_bytes(call.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::wait::ms;

    fn heard(ear: Ear) -> Heard {
        Heard { sent: 50, caller: ear.clone(), client: ear }
    }

    #[test]
    fn whoever_never_hears_anything_has_a_silence_as_long_as_the_call() {
        let began = Instant::now();
        let heard = heard(Ear::since(began).until(began + ms(1_000)));
        assert_eq!((heard.longest(), heard.lost()), (ms(1_000), 50));
    }

    #[test]
    fn a_silence_at_the_beginning_counts_and_so_does_one_that_lasts() {
        let began = Instant::now();
        let mut ear = Ear::since(began);
        ear.hear(began + ms(300));
        ear.hear(began + ms(320));
        assert_eq!(heard(ear.until(began + ms(340))).longest(), ms(300));
        assert_eq!(heard(ear.until(began + ms(900))).longest(), ms(580));
    }
}
