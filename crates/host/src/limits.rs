//! Limits for one instance, and for all instances together. A component that exceeds one is
//! stopped, while other calls continue.

use crate::config_error::ConfigError;
use bytesize::ByteSize;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{io, thread};
use wasmtime::{Engine, ResourceLimiter};

/// Defines [`Limits`] and everything about each limit: field, type, default, and help.
macro_rules! limits {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr;)*) => {
        /// Limits for one instance, and for all instances together.
        ///
        /// What the host keeps for the handles of an instance has fixed bounds: 512 bytes for the
        /// method, the scheme and the authority of a request each, 8 KiB for its path, 4 KiB for its
        /// headers, 16 KiB of its body, and 16 KiB for the headers of a response. By default, this is
        /// less than 8 MiB for one instance.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $help])+ pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Returns the name, default and help of each limit, for a program that prints them.
            pub fn table() -> Vec<(&'static str, String, String)> {
                let default = Limits::default();
                vec![$((stringify!($name), default.$name.to_text(), [$($help.trim()),+].join(" ")),)*]
            }

            /// Sets the limit of this name. A value is a size such as `256MiB`, a duration such as
            /// `10s` or `15m`, or a whole number.
            ///
            /// # Errors
            ///
            /// Fails if there is no limit of this name, or the value is invalid.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
                match name {
                    $(stringify!($name) => {
                        self.$name = LimitValue::from_text(value).ok_or_else(|| {
                            ConfigError::new(format!("limit `{name}`: `{value}` is not {}", <$type as LimitValue>::ACCEPTED))
                        })?;
                    })*
                    _ => {
                        let names = [$(stringify!($name)),*].join(", ");
                        return Err(ConfigError::new(format!("there is no limit `{name}`; known are {names}")));
                    }
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// Memory of one instance. The largest response that the plugin reads takes up to 256 MiB, and
    /// up to 360 MiB as JSON.
    memory: ByteSize = ByteSize::mib(512);
    /// Entries in the tables of one instance's module.
    table: usize = 10_000;
    /// Handles that one instance may have open in the host at once: requests, bodies, streams,
    /// timers. The host keeps up to 32 KiB for each.
    handles: usize = 200;
    /// Time that one call may compute. Waiting does not count.
    compute: Duration = Duration::from_secs(10);
    /// Time that one call may take, waiting included. A blocking query takes up to 10 minutes.
    time: Duration = Duration::from_secs(15 * 60);
    /// Requests that one call may send.
    requests: u64 = 100_000;
    /// Requests that one instance may have in flight at once, and names that it may look up. All
    /// instances together look up 32.
    in_flight: usize = 8;
    /// Size of the body of one response.
    response: ByteSize = ByteSize::mib(64);
    /// Instances at once; further calls wait for one. Consul accepts 200 connections from one
    /// address.
    instances: usize = 100;
}

/// A value of a limit, and its text form.
trait LimitValue: Sized {
    const ACCEPTED: &str;
    fn from_text(text: &str) -> Option<Self>;
    fn to_text(&self) -> String;
}

impl LimitValue for ByteSize {
    const ACCEPTED: &str = "a size above 0, such as 512KiB, 256MiB or 1GiB";

    fn from_text(text: &str) -> Option<ByteSize> {
        text.parse().ok().filter(|size| *size > ByteSize(0))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl LimitValue for Duration {
    const ACCEPTED: &str = "a duration above 0, such as 500ms, 10s or 15m";

    fn from_text(text: &str) -> Option<Duration> {
        // A plain number is in seconds, as in the `consul_session` options.
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.or_else(|| humantime::parse_duration(text).ok()).filter(|duration| !duration.is_zero())
    }

    fn to_text(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl LimitValue for $type {
            const ACCEPTED: &str = "a whole number above 0";

            fn from_text(text: &str) -> Option<$type> {
                text.parse().ok().filter(|number| *number > 0)
            }

            fn to_text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(usize, u64);

/// A limit that a component exceeded, with its value. The component was stopped. A change that it
/// had begun in Consul may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// [`Limits::memory`].
    Memory(ByteSize),
    /// [`Limits::table`].
    Table(usize),
    /// [`Limits::handles`].
    Handles(usize),
    /// [`Limits::compute`].
    Compute(Duration),
    /// [`Limits::time`].
    Time(Duration),
    /// [`Limits::requests`].
    Requests(u64),
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wanted, name, limit) = match self {
            Exceeded::Memory(limit) => ("more memory", "memory", limit.to_text()),
            Exceeded::Table(limit) => ("a larger table", "table", limit.to_text()),
            Exceeded::Handles(limit) => ("more open at once", "handles", limit.to_text()),
            Exceeded::Compute(limit) => ("to compute for longer", "compute", limit.to_text()),
            Exceeded::Time(limit) => ("to take longer", "time", limit.to_text()),
            Exceeded::Requests(limit) => ("to send more requests", "requests", limit.to_text()),
        };
        write!(
            f,
            "the component was stopped: it wanted {wanted} than the limit `{name}` of {limit} allows; an operator raises it by \
             `--limit {name}=VALUE`, or in the configuration file: [limits]"
        )
    }
}

impl std::error::Error for Exceeded {}

/// Bounds the memories and the tables of one instance.
///
/// Exceeding a limit is an error, which ends the component at once and says why. After a mere
/// refusal of the growth, the component's allocator would decide what happens.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limits: Limits,
    memory: usize,
    table: usize,
}

impl MemoryLimiter {
    pub(crate) fn new(limits: Limits) -> MemoryLimiter {
        MemoryLimiter { limits, memory: 0, table: 0 }
    }

    /// Returns the size of all memories of the instance together.
    pub(crate) fn memory(&self) -> ByteSize {
        ByteSize(self.memory as u64)
    }
}

/// How many memories one instance may have. Each reserves 4 GiB of address space, however small it
/// is.
pub(crate) const MAX_MEMORIES: usize = 10;

impl ResourceLimiter for MemoryLimiter {
    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Growth past the memory's own maximum is refused anyway, and takes nothing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.memory = self.memory.saturating_add(desired.saturating_sub(current));
        if self.memory as u64 > self.limits.memory.as_u64() {
            return Err(Exceeded::Memory(self.limits.memory).into());
        }
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table = self.table.saturating_add(desired.saturating_sub(current));
        if self.table > self.limits.table {
            return Err(Exceeded::Table(self.limits.table).into());
        }
        Ok(true)
    }
}

/// The length of an epoch: how long a component computes before it yields to others on its thread.
const EPOCH: Duration = Duration::from_millis(10);

/// Starts a thread that increments the engine's epoch every [`EPOCH`], until the engine is dropped.
///
/// The runtime cannot do this: all its threads may be busy with components that do not end.
///
/// # Errors
///
/// Fails if the thread cannot be started.
pub(crate) fn spawn_epoch_ticker(engine: &Engine) -> io::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(EPOCH);
        }
    };
    thread::Builder::new().name("epochs".into()).spawn(tick).map(drop)
}

/// A call with a limit on the time that it computes, which is the time spent in its polls.
///
/// The component yields after each [`EPOCH`] at the latest, so the measured time is exact to that.
pub(crate) struct CpuBudget<F> {
    call: Pin<Box<F>>,
    left: Duration,
    limit: Duration,
}

impl<F> CpuBudget<F> {
    pub(crate) fn new(call: F, limit: Duration) -> CpuBudget<F> {
        CpuBudget { call: Box::pin(call), left: limit, limit }
    }
}

impl<T, F: Future<Output = wasmtime::Result<T>>> Future for CpuBudget<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let start = Instant::now();
        if let Poll::Ready(output) = self.call.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        self.left = self.left.saturating_sub(start.elapsed());
        if self.left.is_zero() {
            return Poll::Ready(Err(Exceeded::Compute(self.limit).into()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn set(name: &str, value: &str) -> Result<Limits, String> {
        let mut limits = Limits::default();
        limits.set(name, value).map_err(|error| error.to_string())?;
        Ok(limits)
    }

    #[test]
    fn limits_are_set_by_name() {
        let default = Limits::default();
        for (name, value, expected) in [
            ("memory", "64MiB", Limits { memory: ByteSize::mib(64), ..default }),
            ("memory", "1 GiB", Limits { memory: ByteSize::gib(1), ..default }),
            ("memory", "1.5GiB", Limits { memory: ByteSize::mib(1536), ..default }),
            ("memory", "65536", Limits { memory: ByteSize::kib(64), ..default }),
            ("table", "1", Limits { table: 1, ..default }),
            ("handles", "50", Limits { handles: 50, ..default }),
            ("compute", "500ms", Limits { compute: Duration::from_millis(500), ..default }),
            ("compute", "0.5", Limits { compute: Duration::from_millis(500), ..default }),
            ("time", "1h30m", Limits { time: Duration::from_secs(5400), ..default }),
            ("requests", "18446744073709551615", Limits { requests: u64::MAX, ..default }),
            ("in_flight", "2", Limits { in_flight: 2, ..default }),
            ("response", "1MB", Limits { response: ByteSize::mb(1), ..default }),
            ("instances", "7", Limits { instances: 7, ..default }),
        ] {
            assert_eq!(set(name, value), Ok(expected), "{name}={value}");
        }
    }

    #[test]
    fn invalid_values_are_rejected() {
        const SIZE: &str = "is not a size above 0, such as 512KiB, 256MiB or 1GiB";
        const DURATION: &str = "is not a duration above 0, such as 500ms, 10s or 15m";
        const NUMBER: &str = "is not a whole number above 0";
        for (name, values, accepted) in [
            ("memory", &["", "0", "0MiB", "-1MiB", "1MiB1", "MiB", "1 elephant", "many"][..], SIZE),
            ("response", &["", "0", "-1"], SIZE),
            ("compute", &["", "0", "0s", "-1s", "0.0000000001", "1e400", "5x", "soon"], DURATION),
            ("time", &["", "0", "-15m", "inf"], DURATION),
            ("table", &["", "0", "-1", "1.5", "1k", " 1", "99999999999999999999"], NUMBER),
            ("handles", &["0"], NUMBER),
            ("requests", &["0", "18446744073709551616"], NUMBER),
            ("in_flight", &["0"], NUMBER),
            ("instances", &["0", "none"], NUMBER),
        ] {
            for value in values {
                assert_eq!(set(name, value), Err(format!("limit `{name}`: `{value}` {accepted}")));
            }
        }
    }

    #[test]
    fn unknown_name_is_rejected_with_the_known_names() {
        for name in ["", "Memory", "in-flight", "fuel"] {
            assert_eq!(
                set(name, "1"),
                Err(format!(
                    "there is no limit `{name}`; known are memory, table, handles, compute, time, requests, in_flight, response, \
                     instances"
                ))
            );
        }
    }

    #[test]
    fn table_lists_every_limit_with_a_valid_default() {
        let table = Limits::table();
        let names: Vec<_> = table.iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["memory", "table", "handles", "compute", "time", "requests", "in_flight", "response", "instances"]);
        let shown: Vec<_> = table.iter().map(|(_, default, _)| default.as_str()).collect();
        assert_eq!(shown, ["512.0 MiB", "10000", "200", "10s", "15m", "100000", "8", "64.0 MiB", "100"]);
        for (name, default, help) in &table {
            assert_eq!(set(name, default), Ok(Limits::default()), "{name}");
            assert!(help.ends_with('.') && !help.starts_with(' ') && !help.contains("  "), "{help:?}");
        }
    }

    #[test]
    fn exceeded_limit_is_shown_with_the_remedy() {
        for (exceeded, name, cause) in [
            (Exceeded::Memory(ByteSize::mib(64)), "memory", "more memory than the limit `memory` of 64.0 MiB allows"),
            (Exceeded::Table(5), "table", "a larger table than the limit `table` of 5 allows"),
            (Exceeded::Handles(5), "handles", "more open at once than the limit `handles` of 5 allows"),
            (
                Exceeded::Compute(Duration::from_millis(1500)),
                "compute",
                "to compute for longer than the limit `compute` of 1s 500ms allows",
            ),
            (Exceeded::Time(Duration::from_secs(900)), "time", "to take longer than the limit `time` of 15m allows"),
            (Exceeded::Requests(5), "requests", "to send more requests than the limit `requests` of 5 allows"),
        ] {
            assert_eq!(
                exceeded.to_string(),
                format!(
                    "the component was stopped: it wanted {cause}; an operator raises it by `--limit {name}=VALUE`, or in the \
                     configuration file: [limits]"
                )
            );
        }
    }

    #[test]
    fn memories_and_tables_are_summed() {
        let mut limiter = MemoryLimiter::new(Limits { memory: ByteSize(100), table: 100, ..Limits::default() });
        // Up to the exact limit. Growth counts by its difference.
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 30, None).unwrap());
        assert!(limiter.memory_growing(30, 40, None).unwrap());
        assert_eq!(limiter.memory(), ByteSize(100));
        // Growth past the memory's own maximum takes nothing.
        assert!(!limiter.memory_growing(40, 51, Some(50)).unwrap());
        assert_eq!(limiter.memory(), ByteSize(100));
        let stopped = limiter.memory_growing(40, 41, Some(50)).unwrap_err();
        assert_eq!(stopped.downcast_ref(), Some(&Exceeded::Memory(ByteSize(100))));

        assert!(limiter.table_growing(0, 60, None).unwrap());
        assert!(limiter.table_growing(0, 40, None).unwrap());
        assert!(!limiter.table_growing(40, 51, Some(50)).unwrap());
        let stopped = limiter.table_growing(40, 41, None).unwrap_err();
        assert_eq!(stopped.downcast_ref(), Some(&Exceeded::Table(100)));
        assert!(MemoryLimiter::new(Limits::default()).memory_growing(0, usize::MAX, None).is_err());
    }

    #[tokio::test]
    async fn computing_past_the_limit_is_stopped() {
        let mut polls = 0;
        let busy = poll_fn(|context| {
            polls += 1;
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(10) {}
            context.waker().wake_by_ref();
            Poll::<wasmtime::Result<()>>::Pending
        });
        let stopped = CpuBudget::new(busy, Duration::from_millis(35)).await.unwrap_err();
        assert_eq!(stopped.downcast_ref(), Some(&Exceeded::Compute(Duration::from_millis(35))));
        assert!((1..=4).contains(&polls), "{polls}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_does_not_count_as_computing() {
        let waits = async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Ok(5)
        };
        assert_eq!(CpuBudget::new(waits, Duration::from_secs(10)).await.unwrap(), 5);
    }

    #[test]
    fn epoch_ticker_ends_with_the_engine() {
        let engine = Engine::default();
        spawn_epoch_ticker(&engine).unwrap();
        let weak = engine.weak();
        drop(engine);
        let start = Instant::now();
        while weak.upgrade().is_some() {
            assert!(start.elapsed() < Duration::from_secs(10), "the ticker keeps the engine");
        }
    }
}
