//! What happened in the episodes: a world in which nothing does would prove nothing.

use std::fmt;

/// What happened in how many calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub broken: Option<String>,
    pub digest: u64,
    pub calls: u64,
    pub answered: u64,
    pub interrupted: u64,
    /// Answered, with something hidden from the service, and with exact times.
    pub exact: u64,
    pub dialled: u64,
    pub full: u64,
    /// Of whose call nothing was hidden: all of the record was compared.
    pub whole: u64,
    /// Episodes in which nothing went wrong that wasn't a person's doing.
    pub calm: u64,
    pub kills: u64,
    /// Lives of the service that were asked to end, and how often one gave a caller back.
    pub asked_to_end: u64,
    pub sent_back: u64,
    pub crashes_of_asterisk: u64,
    pub hangs: u64,
    pub breaks: u64,
    pub ghosts: u64,
    /// By an operator, and those of them that had been answered.
    pub hung_up: u64,
    pub hung_up_answered: u64,
    pub dropped_out: u64,
    pub defects: u64,
    /// Those that a talk had to outlive.
    pub defects_outlived: u64,
    pub commands: u64,
    pub commands_lost: u64,
    /// Lost, late, refused, or answered late or not at all.
    pub commands_hurt: u64,
    pub events_lost: u64,
    pub events_doubled: u64,
    pub steps: u64,
    /// Looks in which one channel was alone.
    pub alone_most: u32,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.interrupted += other.interrupted;
        self.exact += other.exact;
        self.dialled += other.dialled;
        self.full += other.full;
        self.whole += other.whole;
        self.calm += other.calm;
        self.kills += other.kills;
        self.asked_to_end += other.asked_to_end;
        self.sent_back += other.sent_back;
        self.crashes_of_asterisk += other.crashes_of_asterisk;
        self.hangs += other.hangs;
        self.breaks += other.breaks;
        self.ghosts += other.ghosts;
        self.hung_up += other.hung_up;
        self.hung_up_answered += other.hung_up_answered;
        self.dropped_out += other.dropped_out;
        self.defects += other.defects;
        self.defects_outlived += other.defects_outlived;
        self.commands += other.commands;
        self.commands_lost += other.commands_lost;
        self.commands_hurt += other.commands_hurt;
        self.events_lost += other.events_lost;
        self.events_doubled += other.events_doubled;
        self.steps += other.steps;
        self.alone_most = self.alone_most.max(other.alone_most);
    }

    /// Everything that can happen has happened.
    #[track_caller]
    pub fn assert_eventful(&self) {
        let all = [
            self.answered,
            self.interrupted,
            self.exact,
            self.dialled,
            self.full,
            self.whole,
            self.calm,
            self.kills,
            self.asked_to_end,
            self.sent_back,
            self.crashes_of_asterisk,
            self.hangs,
            self.breaks,
            self.ghosts,
            self.dropped_out,
            self.hung_up - self.hung_up_answered,
            self.hung_up_answered,
            self.defects - self.defects_outlived,
            self.defects_outlived,
            self.commands_lost,
            self.events_lost,
            self.events_doubled,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls: {} answered, {} of them heard in part and exact, {} interrupted, {} refused for want of room, {} heard in whole; {} clients dialled; \
             the service killed {} times, asked to end {} times, which gave callers back {} times, Asterisk crashed {} times, hung {} times, the socket broke \
             {} times, {} episodes were calm; {} commands, {} lost, {} hurt; {} events lost, {} doubled; {} cancels met an answer, {} hung up by operators, {} of them answered, {} dropped out of their bridge; {} defects, {} of them outlived; {} looks at most found one channel alone; {} steps",
            self.calls,
            self.answered,
            self.exact,
            self.interrupted,
            self.full,
            self.whole,
            self.dialled,
            self.kills,
            self.asked_to_end,
            self.sent_back,
            self.crashes_of_asterisk,
            self.hangs,
            self.breaks,
            self.calm,
            self.commands,
            self.commands_lost,
            self.commands_hurt,
            self.events_lost,
            self.events_doubled,
            self.ghosts,
            self.hung_up,
            self.hung_up_answered,
            self.dropped_out,
            self.defects,
            self.defects_outlived,
            self.alone_most,
            self.steps,
        )
    }
}
