//! Operations on lists of filters and routes.

use pilotfish_model::envoy_filter::Operation;

/// Applies an operation on a list. `found`: which elements are meant; `None`: there is nothing to look for. False if there was
/// nothing to do.
pub(super) fn apply<T>(list: &mut Vec<T>, operation: Operation, found: Option<&dyn Fn(&T) -> bool>, value: impl FnOnce() -> T) -> bool {
    let first = found.and_then(|found| list.iter().position(found));
    match (operation, found) {
        (Operation::Add, _) | (Operation::InsertAfter, None) => list.push(value()),
        (Operation::InsertFirst, _) | (Operation::InsertBefore, None) => list.insert(0, value()),
        (Operation::InsertBefore | Operation::InsertAfter | Operation::Replace, Some(_)) => {
            let Some(at) = first else { return false };
            match operation {
                Operation::InsertBefore => list.insert(at, value()),
                Operation::InsertAfter => list.insert(at + 1, value()),
                _ => list[at] = value(),
            }
        }
        (Operation::Remove, Some(found)) => {
            let before = list.len();
            list.retain(|t| !found(t));
            return list.len() < before;
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_with_and_without_something_to_look_for() {
        use Operation::{Add, InsertAfter, InsertBefore, InsertFirst, Merge, Remove, Replace};
        let patched = |operation, wanted: Option<u8>| {
            let mut list = vec![1, 2, 1];
            let is_wanted = move |x: &u8| Some(*x) == wanted;
            let found: &dyn Fn(&u8) -> bool = &is_wanted;
            let done = apply(&mut list, operation, wanted.map(|_| found), || 9);
            (list, done)
        };
        let cases: [(Operation, Option<u8>, &[u8]); 14] = [
            (Add, None, &[1, 2, 1, 9]),
            (Add, Some(2), &[1, 2, 1, 9]),
            (InsertFirst, None, &[9, 1, 2, 1]),
            (InsertFirst, Some(2), &[9, 1, 2, 1]),
            (InsertBefore, None, &[9, 1, 2, 1]),
            (InsertBefore, Some(2), &[1, 9, 2, 1]),
            (InsertAfter, None, &[1, 2, 1, 9]),
            (InsertAfter, Some(1), &[1, 9, 2, 1]),
            (InsertAfter, Some(3), &[1, 2, 1]),
            (Replace, Some(1), &[9, 2, 1]),
            (Replace, None, &[1, 2, 1]),
            (Remove, Some(1), &[2]),
            (Remove, None, &[1, 2, 1]),
            (Merge, Some(1), &[1, 2, 1]),
        ];
        for (operation, wanted, expected) in cases {
            assert_eq!(patched(operation, wanted), (expected.to_vec(), expected != [1, 2, 1]), "{operation:?} {wanted:?}");
        }
    }
}
