//! Small private stand-ins for parts that are not merged yet. Nothing here ships.

pub(crate) mod node;
