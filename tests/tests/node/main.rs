//! A node with pods as the CNI wires them: each finding comes of real traffic or real objects and resolves when its
//! cause goes, and pods that do nothing wrong have none.

mod conntrack;
mod credentials;
mod handed_over;
mod hop_limit;
mod mesh;
mod papers;
mod recording;
mod services;
mod traffic;
mod verdicts;
