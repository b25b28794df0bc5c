//! [`Election`]: whose the Lease is. Pure: it is told what was read, what was written and when.

use tokio::time::Instant;

use super::{FIRST_TERM, Record, Term, Timing};

/// What to do about a Lease that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this over the version that was read; `None`: make the Lease.
    Write(Record, Option<String>),
    /// Somebody else leads.
    Wait,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// What the Lease said when it was read last, and since when it has.
    seen: Option<(Record, String, Instant)>,
    term: Option<Term>,
}

impl Election {
    /// `me` must be a name that no other process ever has.
    pub fn new(me: String, timing: Timing) -> Self {
        Election { me, timing, seen: None, term: None }
    }

    /// The term that this replica leads in.
    pub fn term(&self, now: Instant) -> Option<Term> {
        self.term.filter(|t| t.until.is_some_and(|until| now < until))
    }

    /// The Lease was read; `wall` is the time to write into it. `None`: there is none.
    pub fn read(&mut self, lease: Option<(Record, String)>, now: Instant, wall: &str) -> Step {
        let Some((record, version)) = lease else {
            self.seen = None;
            self.term = None;
            return Step::Write(self.mine(&Record::default(), wall, 0), None);
        };
        match &mut self.seen {
            // A touch of something else in the Lease is no renewal.
            Some((seen, at, _)) if *seen == record => *at = version.clone(),
            seen => *seen = Some((record.clone(), version.clone(), now)),
        }
        if record.holder == self.me {
            return Step::Write(Record { renewed: wall.to_owned(), seconds: self.seconds(), ..record }, Some(version));
        }
        self.term = None;
        let since = self.seen.as_ref().map_or(now, |(_, _, since)| *since);
        if record.holder.is_empty() || now >= since + record.duration() {
            return Step::Write(self.mine(&record, wall, 1), Some(version));
        }
        Step::Wait
    }

    /// The write of a step, begun at `started`, has happened.
    pub fn wrote(&mut self, record: Record, version: String, started: Instant) {
        let until = Some(started + self.timing.until());
        let number = record.transitions + FIRST_TERM;
        let known = self.term.filter(|t| t.number == number);
        self.term = Some(Term { number, until: until.max(known.and_then(|t| t.until)) });
        self.seen = Some((record, version, started));
    }

    /// Gives the lead up. What to write so that others need not wait.
    pub fn resign(&mut self) -> Option<(Record, String)> {
        self.term = None;
        let (record, version, _) = self.seen.take()?;
        // A time of zero would be invalid.
        (record.holder == self.me).then(|| (Record { holder: String::new(), seconds: 1, ..record }, version))
    }

    fn mine(&self, before: &Record, wall: &str, transitions: u64) -> Record {
        Record {
            holder: self.me.clone(),
            seconds: self.seconds(),
            acquired: wall.to_owned(),
            renewed: wall.to_owned(),
            transitions: before.transitions + transitions,
        }
    }

    /// Whole seconds, no less than what is counted with.
    fn seconds(&self) -> u64 {
        let duration = self.timing.duration;
        duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
    }
}
