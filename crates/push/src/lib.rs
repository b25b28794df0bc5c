//! What happens between a change and its effect: wait a little for more, take turns, let in. Generic over what changes and who waits;
//! time comes from tokio's clock, which tests pause.
//!
//! ```text
//!  changes               debounce                    schedule                                   workers
//!
//!  a  x x x  x ─> [ quiet time ... ceiling ] ─┐      most    unconfigured      a░ c░
//!  b  x        ─> [ at once ]                ─┼──>   urgent  endpoint removal  b░           ──> at most N jobs,
//!  c  x   xx   ─> [ quiet time ]             ─┘      first   endpoint add      a░░              one of each key
//!                       ^                                    config            a░░░░░ b░ c░             │
//!                       └──────────────────────── what it cost ─────────────────────────────────────────┘
//!
//!  clients  x x x x x x x ─> [ gate: the most urgent first, then in order; a rate, so many at a time ] ──> in
//! ```
//!
//! * [`debounce::channel`] ([`Windows`]): changes of one scope merge, so memory does not grow with their number. The first after
//!   quiet goes at once; later ones wait for a quiet time, but never past the ceiling, which counts from the event. Both shrink to
//!   what a rebuild of that scope costs. A busy scope delays no other's batch.
//! * [`Scheduler`] ([`Schedule`]): at most a limit of jobs in flight, one of each key, and nothing is lost: what comes while a job is
//!   in flight starts after it. The most urgent class first; within it groups share by measured cost and weight (start-time fair
//!   queueing), idleness saves up nothing, and each group is first in, first out. A class whose oldest job has waited for
//!   [`Schedule::AGE`] gets one in [`Schedule::SHARE`] starts, so nothing starves.
//! * [`Gate`] ([`Admission`]): a rate and a limit of concurrent permits. Shapes, never refuses.
//!
//! The parts in brackets are pure: synchronous, with `now` as an argument. The others are thin shells around them, safe to cancel.
//!
//! ```
//! use std::{num::NonZeroUsize, time::Duration};
//! use pilotfish_push::{Merge, Scheduler, Timing, Urgency, debounce};
//! use tokio::time::Instant;
//!
//! struct Edits(Vec<&'static str>);
//!
//! impl Merge for Edits {
//!     fn merge(&mut self, later: Edits) {
//!         self.0.extend(later.0);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let (sender, mut batches) = debounce::channel();
//! sender.send("shop", Edits(vec!["route"]), Timing::default(), Instant::now());
//! sender.send("shop", Edits(vec!["gateway"]), Timing::default(), Instant::now());
//! let (namespace, batch) = batches.next().await.unwrap();
//! assert_eq!((namespace, batch.count), ("shop", 2));
//! batches.spent(&namespace, Duration::from_micros(300));
//!
//! let scheduler = Scheduler::new(NonZeroUsize::MIN);
//! scheduler.submit("proxies of the shop", namespace, Urgency::Config, batch.change, batch.since);
//! let running = scheduler.next().await;
//! assert_eq!(running.job.change.0, ["route", "gateway"]);
//! running.done(Duration::from_millis(2));
//! # }
//! ```

mod admission;
pub mod debounce;
mod fair;
mod gate;
mod merge;
mod schedule;
mod scheduler;
mod sync;
mod urgency;
mod windows;

pub use admission::{Admission, Limits, Rate, Ticket};
pub use gate::{Gate, Permit};
pub use merge::{Batch, Merge};
pub use schedule::{Job, Schedule};
pub use scheduler::{Lease, Running, Scheduler};
pub use urgency::Urgency;
pub use windows::{Timing, Windows};
