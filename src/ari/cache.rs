//! Asterisk remembers clients, so that calls go on while its database is away.
//!
//! `sorcery.conf` puts a cache before the tables of endpoints, AORs and auths. It
//! never expires by itself: a refresh that found no database would empty it. A
//! client that isn't in it is looked up in the database. When a client is changed,
//! Asterisk is told to read `res_pjsip` again, which empties the cache, fills it
//! anew, and probes addresses as it is said now; it is the only way that ARI has.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::AriClient;

/// What Asterisk remembers of clients. Cheap to clone.
#[derive(Clone)]
pub struct ClientCache {
    /// How often it was to be renewed.
    asked: Arc<watch::Sender<u64>>,
    /// The newest of these that is done.
    done: watch::Receiver<u64>,
}

/// Tells Asterisk.
pub struct Renewal {
    asked: watch::Receiver<u64>,
    done: watch::Sender<u64>,
}

const MODULE: &str = "res_pjsip.so";
/// How long a change waits for an Asterisk that doesn't answer.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);
/// Changes that nobody waits for are told together.
const DEBOUNCE: Duration = Duration::from_millis(200);

// === impl ClientCache ===

impl ClientCache {
    pub fn new() -> (Self, Renewal) {
        let (asked_in, asked) = watch::channel(0);
        let (done_in, done) = watch::channel(0);
        (Self { asked: Arc::new(asked_in), done }, Renewal { asked, done: done_in })
    }

    /// Has it renewed soon.
    pub fn renew_soon(&self) {
        let asked = self.asked.clone();
        tokio::spawn(async move {
            sleep(DEBOUNCE).await;
            asked.send_modify(|asked| *asked += 1);
        });
    }

    /// Has it renewed, and waits until the next call sees what the database says now,
    /// as long as Asterisk answers.
    pub async fn renew(&self) {
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        let mut done = self.done.clone();
        let renewed = timeout(PATIENCE, done.wait_for(|done| *done >= mine)).await;
        if !matches!(renewed, Ok(Ok(_))) {
            warn!("Asterisk doesn't see a changed client yet; it is told as soon as it answers");
        }
    }
}

// === impl Renewal ===

impl Renewal {
    /// Runs until nobody asks any more. Asterisk isn't told while the database is
    /// away: it would forget the clients, and find none.
    pub async fn run<F>(mut self, ari: Arc<AriClient>, is_database_there: impl Fn() -> F)
    where
        F: Future<Output = bool>,
    {
        loop {
            let done = *self.done.borrow();
            let Ok(asked) = self.asked.wait_for(|asked| *asked > done).await.map(|asked| *asked)
            else {
                return;
            };
            if !is_database_there().await {
                sleep(RETRY).await;
                continue;
            }
            match ari.reload_module(MODULE).await {
                Ok(()) => {
                    self.done.send_replace(asked);
                }
                // Whoever waits says so.
                Err(_) => sleep(RETRY).await,
            }
        }
    }
}
