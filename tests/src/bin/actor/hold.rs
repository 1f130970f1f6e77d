//! Many connections, held open at once.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use system_tests::http::Reader;
use system_tests::protocol::Load;

use crate::serve;

/// Connections that are held open.
#[derive(Default)]
pub(crate) struct Held {
    streams: Vec<TcpStream>,
}

impl Held {
    pub(crate) fn open(&mut self, server: SocketAddr, connections: usize) -> Result<Load> {
        let mut load = Load::default();
        for index in 0..connections {
            let stream = TcpStream::connect(server).with_context(|| format!("connect to {server}"))?;
            let mut reader = Reader::new(stream);
            load += serve::request(&mut reader, index)?;
            self.streams.push(reader.into_stream());
        }
        Ok(load)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of every operation")]
    pub(crate) fn close(&mut self) -> Result<()> {
        self.streams.clear();
        Ok(())
    }
}
