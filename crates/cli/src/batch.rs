//! Many sessions at once: `apply --file` and `destroy --name-prefix`.

mod apply;
mod common;
mod destroy;
mod file;
mod pool;
mod replay;
mod scheduler;

pub use apply::{APPLY, apply};
pub use destroy::{DESTROY, destroy};
