//! Waiting for a condition.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Enough for a busy CI machine; a test that passes never waits this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again until the answer is `Ok`. Panics at the deadline with what was awaited and the last refusal.
pub async fn until<T, E: Display>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    until_within(DEADLINE, what, &mut ask).await
}

/// [`until`] for what takes about a millisecond and is awaited thousands of times.
pub async fn until_soon<T, E: Display>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    poll(DEADLINE, Duration::from_millis(1), what, &mut ask).await
}

/// [`until`] with a deadline of its own.
pub async fn until_within<T, E: Display>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    poll(deadline, PAUSE, what, &mut ask).await
}

async fn poll<T, E: Display>(deadline: Duration, pause: Duration, what: &str, ask: &mut impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(refusal) if start.elapsed() >= deadline => panic!("waited {deadline:?} for {what}: {refusal}"),
            Err(_) => sleep(pause).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn asks_until_it_is_so() {
        let mut left = 3;
        let answer = until("a countdown", async || {
            left -= 1;
            if left == 0 { Ok("done") } else { Err(left) }
        });
        assert_eq!(answer.await, "done");
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 30s for nothing: never")]
    async fn gives_up_with_the_reason() {
        until("nothing", async || Err::<(), _>("never")).await;
    }
}
