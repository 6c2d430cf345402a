//! That the harness itself notices what is left behind: a test that cannot fail shows nothing.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command};

use crate::support::TestServer;

/// A process that is ended with its holder.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "no process of the server is left")]
async fn a_process_that_is_left_is_noticed() {
    let server = TestServer::builder().start().await;
    let mut command = Command::new("sleep");
    command.arg("600").env("PHOEBE_SERVER_INSTANCE", server.instance());
    let _left = Sleeper(command.spawn().unwrap());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "ports are still bound")]
async fn a_port_that_is_left_is_noticed() {
    let server = TestServer::builder().start().await;
    let _left = TcpListener::bind((Ipv4Addr::LOCALHOST, server.port_pool().end - 1)).unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "\"stray\" is left")]
async fn a_file_that_is_left_is_noticed() {
    let server = TestServer::builder().start().await;
    fs::write(server.data().join("stray"), "").unwrap();
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "rows are still active")]
async fn a_row_that_is_left_is_noticed() {
    let mut server = TestServer::builder().set("session.durability", "off").start().await;
    server.start_session().await;
    server.stop().await;
    server.database().execute("UPDATE sessions SET status = 'active'");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "must be ended with finish()")]
async fn a_server_that_is_forgotten_is_noticed() {
    drop(TestServer::builder().start().await);
}
