//! [`Lately`]: what this thread found sound lately. Resources are made one after the other, and most of what is in one is in the
//! next.

use std::cell::RefCell;

/// Sizes in bytes of messages that are worth a look: below, looking into them is as fast; above, they would take too much room.
const WORTH_A_LOOK: std::ops::RangeInclusive<usize> = 32..=4096;
/// Messages that are kept.
const SLOTS: usize = 128;

thread_local! {
    static LATELY: RefCell<Lately> = RefCell::default();
}

/// The last message of some types and lengths.
#[derive(Default)]
pub(super) struct Lately(Vec<Slot>);

#[derive(Clone, Default)]
struct Slot {
    /// Index of the type.
    message: usize,
    /// How deep it lay: how deep, too, is a rule.
    depth: usize,
    bytes: Vec<u8>,
}

impl Lately {
    /// With what this thread has; with nothing inside another such call.
    pub(super) fn with<T>(then: impl FnOnce(&mut Lately) -> T) -> T {
        LATELY.with(|lately| match lately.try_borrow_mut() {
            Ok(mut lately) => then(&mut lately),
            Err(_) => then(&mut Lately::default()),
        })
    }

    /// Whether the message was found sound lately, as deep at least. If not, and `look` finds it sound now, it is from now on.
    pub(super) fn knows_or(&mut self, message: usize, bytes: &[u8], depth: usize, look: impl FnOnce(&mut Self) -> bool) -> bool {
        if !WORTH_A_LOOK.contains(&bytes.len()) {
            return look(self);
        }
        let at = message.wrapping_mul(31).wrapping_add(bytes.len()) % SLOTS;
        if self.0.get(at).is_some_and(|slot| slot.message == message && slot.depth >= depth && slot.bytes == bytes) {
            return true;
        }
        let is_sound = look(self);
        if is_sound {
            if self.0.is_empty() {
                self.0.resize(SLOTS, Slot::default());
            }
            if let Some(slot) = self.0.get_mut(at) {
                (slot.message, slot.depth) = (message, depth);
                slot.bytes.clear();
                slot.bytes.extend_from_slice(bytes);
            }
        }
        is_sound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it had to look.
    fn looks(lately: &mut Lately, message: usize, bytes: &[u8], depth: usize, is_sound: bool) -> bool {
        let mut looked = false;
        let found = lately.knows_or(message, bytes, depth, |_| {
            looked = true;
            is_sound
        });
        assert_eq!(found, is_sound || !looked);
        looked
    }

    #[test]
    fn a_message_is_looked_at_again_if_anything_is_different() {
        let mut lately = Lately::default();
        let (a, b) = ([1; 50], [2; 50]);
        assert!(looks(&mut lately, 7, &a, 3, false));
        assert!(looks(&mut lately, 7, &a, 3, true), "what was not sound is not kept");
        assert!(!looks(&mut lately, 7, &a, 3, true));
        assert!(!looks(&mut lately, 7, &a, 2, true), "nor can it be too deep here");
        assert!(looks(&mut lately, 7, &a, 4, true), "deeper, it may be");
        assert!(looks(&mut lately, 7, &b, 4, true));
        assert!(looks(&mut lately, 7 + SLOTS, &b, 4, true), "another type in the same place");
        for _ in 0..2 {
            assert!(looks(&mut lately, 7, &[1; 8], 0, true), "too small to be kept");
            assert!(looks(&mut lately, 7, &[1; 5000], 0, true), "too big to be kept");
        }
    }
}
