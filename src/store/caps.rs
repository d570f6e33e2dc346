//! The cap columns that links, clients, campaigns and sellers' accounts share.

use capconduit_entity::{Role, campaign, client, link, user};
use chrono_tz::Tz;
use sea_orm::{ActiveValue, ConnectionTrait, DbErr, EntityTrait};
use tracing::warn;

use crate::capacity::{Caps, Scope, ScopeKind, WindowKind};
use crate::ids::{CampaignId, ClientId, LinkId, SellerId};

/// A row that has caps.
pub trait Capped: Send + Sync {
    fn scope(&self) -> Scope;

    /// Live calls at once; none = no cap.
    fn concurrency(&self) -> Option<i32>;

    /// Calls per window; none = no cap.
    fn volume(&self, kind: WindowKind) -> Option<i32>;

    /// The IANA name of the zone in which the windows start.
    fn zone(&self) -> &str;

    /// The caps, compiled.
    fn caps(&self) -> Caps {
        let zone = self.zone().parse().unwrap_or_else(|_| {
            let (scope, id) = (self.scope().kind.as_str(), self.scope().id);
            warn!(scope, id, zone = self.zone(), "unknown time zone, UTC is used");
            Tz::UTC
        });
        Caps {
            concurrency: self.concurrency().map(limit),
            volume: WindowKind::ALL.map(|kind| self.volume(kind).map(limit)),
            zone,
        }
    }
}

/// The volume caps of a row that is about to be written.
pub trait VolumeColumns {
    fn volume_mut(&mut self, kind: WindowKind) -> &mut ActiveValue<Option<i32>>;
    fn zone_mut(&mut self) -> &mut ActiveValue<String>;
}

macro_rules! capped {
    ($($table:ident => $scope:expr),+ $(,)?) => {$(
        impl Capped for $table::Model {
            fn scope(&self) -> Scope {
                ($scope)(self.id)
            }

            fn concurrency(&self) -> Option<i32> {
                self.max_concurrency.into()
            }

            fn volume(&self, kind: WindowKind) -> Option<i32> {
                match kind {
                    WindowKind::Total => self.total_calls_allowed,
                    WindowKind::Hour => self.hourly_cap,
                    WindowKind::Day => self.daily_cap,
                    WindowKind::Week => self.weekly_cap,
                    WindowKind::Month => self.monthly_cap,
                }
            }

            fn zone(&self) -> &str {
                &self.time_zone
            }
        }

        impl VolumeColumns for $table::ActiveModel {
            fn volume_mut(&mut self, kind: WindowKind) -> &mut ActiveValue<Option<i32>> {
                match kind {
                    WindowKind::Total => &mut self.total_calls_allowed,
                    WindowKind::Hour => &mut self.hourly_cap,
                    WindowKind::Day => &mut self.daily_cap,
                    WindowKind::Week => &mut self.weekly_cap,
                    WindowKind::Month => &mut self.monthly_cap,
                }
            }

            fn zone_mut(&mut self) -> &mut ActiveValue<String> {
                &mut self.time_zone
            }
        }
    )+};
}

capped! {
    link => |id| Scope::link(LinkId(id)),
    client => |id| Scope::client(ClientId(id)),
    campaign => |id| Scope::campaign(CampaignId(id)),
    user => |id| Scope::seller(SellerId(id)),
}

/// Whatever has this scope, with its caps; none if it isn't there.
///
/// # Errors
/// When the database can't be read.
pub async fn find(
    db: &impl ConnectionTrait,
    scope: Scope,
) -> Result<Option<Box<dyn Capped>>, DbErr> {
    fn boxed<R: Capped + 'static>(row: R) -> Box<dyn Capped> {
        Box::new(row)
    }
    let id = scope.id;
    Ok(match scope.kind {
        ScopeKind::Link => link::Entity::find_by_id(id).one(db).await?.map(boxed),
        ScopeKind::Client => client::Entity::find_by_id(id).one(db).await?.map(boxed),
        ScopeKind::Campaign => campaign::Entity::find_by_id(id).one(db).await?.map(boxed),
        ScopeKind::Seller => {
            let user = user::Entity::find_by_id(id).one(db).await?;
            user.filter(|user| user.role == Role::User).map(boxed)
        }
    })
}

/// A number that can't be below zero, whatever a row says.
pub(super) fn limit(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
