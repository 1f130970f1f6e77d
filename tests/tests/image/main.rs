//! The image in a real container runtime, started as the shipped manifest says, and with less.

mod contents;
mod privileges;
mod running;
mod seccomp;
