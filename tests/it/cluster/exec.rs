//! Programs in containers.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::AttachParams};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a program in a pod wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The exit code.
    pub(crate) code: i32,
}

/// A container of a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) name: &'a str,
}

/// Runs a command in a container, gives it this input and waits for its end.
pub(crate) async fn exec(client: Client, whose: Container<'_>, command: &[&str], input: &[u8]) -> Output {
    let parameters = AttachParams::default().container(whose.name).stdin(true).stdout(true).stderr(true);
    let pods: Api<Pod> = Api::namespaced(client, whose.namespace);
    let mut process = pods.exec(whose.pod, command.iter().copied(), &parameters).await.unwrap();
    let (mut stdin, mut out, mut err) =
        (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let give = async move {
        // A command that wants no input may be gone already.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    };
    let ((), out, err, status) =
        tokio::join!(give, out.read_to_string(&mut stdout), err.read_to_string(&mut stderr), status);
    out.unwrap();
    err.unwrap();
    let status = serde_json::to_value(status.expect("the end of a command comes with a status")).unwrap();
    Output { stdout, stderr, code: exit_code(&status) }
}

/// As kubelet tells it: in a cause, if it is not 0.
fn exit_code(status: &Value) -> i32 {
    if status["status"] == "Success" {
        return 0;
    }
    let mut causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes.find(|cause| cause["reason"] == "ExitCode");
    code.and_then(|cause| cause["message"].as_str()?.parse().ok())
        .unwrap_or_else(|| panic!("no exit code: {status}"))
}
