//! What calls ask of the switch: commands that are carried out, or not, or nobody knows.

use super::client::AriError;
use super::model::{Bridge, Channel};

pub type Done = Result<(), AriError>;

/// Q.850: no circuit available. The caller gets a 503.
pub const NO_CIRCUIT: i32 = 34;

/// The switch as calls see it: one method for each command that they use.
/// None is ever repeated by itself.
#[async_trait::async_trait]
pub trait Switch: Send + Sync + 'static {
    /// The Stasis application that calls come to.
    fn application(&self) -> &str;

    /// Makes a mixing bridge of this name. That there is one is a success.
    async fn create_bridge(&self, bridge: &str) -> Done;

    /// Puts a channel into a bridge. An unanswered channel stays unanswered.
    async fn add_to_bridge(&self, bridge: &str, channel: &str) -> Done;

    /// Takes a channel out of a bridge; it goes on ringing or talking to nobody.
    /// One that isn't there any more is a success.
    async fn remove_from_bridge(&self, bridge: &str, channel: &str) -> Done;

    async fn destroy_bridge(&self, bridge: &str) -> Done;

    /// Makes a channel to `endpoint` that isn't dialled yet. It enters our
    /// application at once: dial it when its `StasisStart` has come.
    async fn create_channel(&self, channel: &str, endpoint: &str, originator: &str) -> Done;

    /// Sends the INVITE, with the caller's identity. `timeout_seconds` is a
    /// safety net: who rings how long is ours to time.
    async fn dial(&self, channel: &str, caller: &str, timeout_seconds: u32) -> Done;

    async fn answer(&self, channel: &str) -> Done;

    /// Ends a channel with this Q.850 cause. One that is no more is a success.
    async fn hang_up(&self, channel: &str, cause: i32) -> Done;

    /// Gives a caller back to the dialplan, to the place where it waits for the
    /// application. A switch without such a place ends the call: no circuit available.
    async fn send_back(&self, channel: &str) -> Done {
        self.hang_up(channel, NO_CIRCUIT).await
    }

    /// The channel as it is now; none if it is no more.
    async fn channel(&self, channel: &str) -> Result<Option<Channel>, AriError>;

    async fn channels(&self) -> Result<Vec<Channel>, AriError>;

    async fn bridges(&self) -> Result<Vec<Bridge>, AriError>;
}
