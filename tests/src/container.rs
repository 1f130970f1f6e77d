//! Debian's containerd with everything of its own below a temporary directory, and the agent's image in it, started as the
//! manifests say. Whatever was started ends with its guard.

mod daemon;
mod manifest;
mod spec;

pub use daemon::{Containerd, Exit, Task};
pub use manifest::{Manifest, Mount, Volume};
