//! The options: their values and defaults, durations, and the combinations that are allowed.

mod combinations;
mod durations;
mod values;
