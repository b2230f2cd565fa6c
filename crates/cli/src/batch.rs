//! Many sessions at once: `apply` and `destroy --name-prefix`.

mod apply;
mod common;
mod destroy;
mod file;
mod pool;
mod replay;
mod scheduler;

pub use apply::apply;
pub use destroy::destroy;
