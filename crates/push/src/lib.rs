//! Debounce and merge changes; generic over what changes, with time from tokio's clock (which tests pause).
//!
//! ```text
//!   change  x        x x x x        x x x x x x x x x x x x x x
//!   push    x               x                     x             ...
//!           at once         after a quiet window  at the ceiling
//! ```
//!
//! Changes merge into one pending batch, so that memory does not grow with their number, however long a push takes.
//! Enter at [`channel`]; [`Window`] is the pure core.

mod debounce;
mod window;

pub use debounce::{Debounced, Sender, channel};
pub use window::{Batch, Config, Merge, Window};
