//! Who should get this call.
//!
//! Routing is pure: an immutable [`Snapshot`] of the configuration, the number
//! that was dialled and a random seed go in, a [`Plan`] comes out. The plan
//! holds the links in the order in which they are to be tried, frozen for this
//! call, or says why nobody can have it; and for every link that is left out,
//! why. Whether there is *room* is not asked here: that is the ledger's to say,
//! at the moment of each attempt.
//!
//! The dry run and a real call use the same functions, so they can't disagree.

pub mod snapshot;
pub mod strategy;
pub mod trace;

use std::sync::Arc;

use capconduit_entity::{CallReason, CampaignStatus, E164, Status, Strategy};

use crate::capacity::{Candidate, Caps, Scope, Turn};
use crate::clock::Timestamp;
pub use snapshot::{Campaign, Client, Current, Did, Link, Snapshot};
pub use trace::{LinkTrace, Trace};

/// What is to be done with one call.
#[derive(Clone, Debug)]
pub struct Plan {
    pub did: Option<Arc<Did>>,
    pub decision: Decision,
    /// What was decided and why, as far as it is known before the first attempt.
    pub trace: Trace,
}

#[derive(Clone, Debug)]
pub enum Decision {
    /// Nobody can have the call.
    Refuse(CallReason),
    /// These can, in this order.
    Offer(Offer),
}

/// The links that may get a call.
#[derive(Clone, Debug)]
pub struct Offer {
    pub campaign: Arc<Campaign>,
    /// In the order in which they are to be tried; by id where the ledger rotates them.
    pub links: Vec<Arc<Link>>,
}

/// Decides who should get a call to `dialled`.
pub fn plan(snapshot: &Snapshot, dialled: &str, seed: u32) -> Plan {
    let did = E164::from_dialled(dialled).and_then(|number| snapshot.did(&number));
    let mut trace = Trace { revision: Some(snapshot.revision()), ..Trace::default() };
    let decision = match &did {
        None => Decision::Refuse(CallReason::DidNotFound),
        Some(did) => {
            trace.note_did(did);
            decide(did, seed, &mut trace)
        }
    };
    Plan { did, decision, trace }
}

fn decide(did: &Did, seed: u32, trace: &mut Trace) -> Decision {
    use CallReason::{
        DidInactive, NoActiveCampaignForDid, NoActiveClientsInCampaign, OwnerInactive,
    };
    if did.status != Status::Active {
        return Decision::Refuse(DidInactive);
    }
    if !did.seller_active {
        return Decision::Refuse(OwnerInactive);
    }
    let Some(campaign) = did.campaign.as_ref().filter(|c| c.status == CampaignStatus::Active)
    else {
        return Decision::Refuse(NoActiveCampaignForDid);
    };
    trace.note_campaign(campaign);
    let (eligible, left_out): (Vec<_>, Vec<_>) =
        campaign.links.iter().cloned().partition(|link| link.obstacle().is_none());
    let links = strategy::order(campaign.strategy, eligible, seed);
    if campaign.strategy != Strategy::RoundRobin {
        trace.seed = Some(seed);
    }
    trace.note_links(&links, &left_out);
    if links.is_empty() {
        return Decision::Refuse(NoActiveClientsInCampaign);
    }
    Decision::Offer(Offer { campaign: campaign.clone(), links })
}

// === impl Offer ===

impl Offer {
    /// Whose turn the first attempt uses up.
    pub fn first_turn(&self) -> Turn {
        match self.campaign.strategy {
            Strategy::RoundRobin => Turn::Rotate(self.campaign.id),
            Strategy::Priority | Strategy::Weighted => Turn::None,
        }
    }

    /// Whose turn an attempt after the first uses up.
    pub fn later_turn(&self) -> Turn {
        match self.campaign.strategy {
            Strategy::RoundRobin => Turn::Advance(self.campaign.id),
            Strategy::Priority | Strategy::Weighted => Turn::None,
        }
    }
}

// === impl Link ===

impl Link {
    /// Why this link is no candidate, whatever room there is.
    pub fn obstacle(&self) -> Option<&'static str> {
        if self.status != Status::Active {
            Some("link_inactive")
        } else if self.client.status != Status::Active {
            Some("client_inactive")
        } else if self.client.endpoint.is_empty() {
            Some("no_endpoint")
        } else {
            None
        }
    }

    /// What a call over this link counts in, if it is held at `moment`.
    pub fn candidate(&self, moment: Timestamp) -> Candidate {
        let own = self.caps.windows(moment);
        // Zones are mostly the same, and calendars cost time.
        let windows =
            |caps: &Caps| if caps.zone == self.caps.zone { own } else { caps.windows(moment) };
        let claims = self.scopes().map(|(scope, caps)| caps.claim(scope, windows(caps)));
        Candidate { link: self.id, claims: claims.into() }
    }

    /// Everything that a call over this link counts in, in the order in which it is looked at.
    fn scopes(&self) -> [(Scope, &Caps); 4] {
        [
            (Scope::link(self.id), &self.caps),
            (Scope::client(self.client.id), &self.client.caps),
            (Scope::campaign(self.campaign), &self.campaign_caps),
            (Scope::seller(self.seller), &self.seller_caps),
        ]
    }
}
