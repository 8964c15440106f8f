//! What the answer to the creation of a pod or claim means to a run.

use kube::core::Status;

use crate::{
    kinds::Reason,
    ports::workloads::{Error, RunKey},
};

/// Most bytes that are kept of a text of the API server.
const MAX_MESSAGE: usize = 700;

/// Why a pod was not made.
pub(super) fn refusal(run: &RunKey, what: &'static str, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => match reason(&status) {
            Some(reason) => {
                let mut message = status.message;
                message.truncate(message.floor_char_boundary(MAX_MESSAGE));
                Error::Refused { run: run.clone(), reason, message }
            }
            None => unavailable(run, what, kube::Error::Api(status)),
        },
        other => unavailable(run, what, other),
    }
}

pub(super) fn unavailable(
    run: &RunKey,
    what: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Unavailable { run: run.clone(), what, source: error.into() }
}

/// The reason, if trying again as things are changes nothing.
fn reason(status: &Status) -> Option<Reason> {
    let says = |text: &str| status.message.contains(text);
    match status.code {
        // of a quota that was just made, nobody has counted yet what is used
        403 if says("exceeded quota") || says("failed quota") || says("status unknown for quota") => {
            Some(Reason::QuotaExceeded)
        }
        // a namespace that goes takes its runs along; one that comes has no service account for a moment
        403 if says("being terminated") || says("error looking up service account") => None,
        // the API server's own right to refuse us: somebody may give it back
        403 if says("cannot create resource") => None,
        400 | 403 | 422 if says("denied the request") || says("denied request") => {
            Some(Reason::AdmissionRefused)
        }
        403 => Some(Reason::AdmissionRefused),
        400 | 413 | 422 => Some(Reason::InvalidSpec),
        500 if says("etcdserver: request is too large") => Some(Reason::InvalidSpec),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_api_server() {
        let forbidden = |why: &str| format!("pods \"a\" is forbidden: {why}");
        let cases = [
            (
                403,
                forbidden("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"),
                Some(Reason::QuotaExceeded),
            ),
            (
                403,
                forbidden("failed quota: q: must specify limits.cpu for: agent"),
                Some(Reason::QuotaExceeded),
            ),
            (403, forbidden("status unknown for quota: q, resources: pods"), Some(Reason::QuotaExceeded)),
            (
                403,
                forbidden("violates PodSecurity \"restricted:latest\": runAsNonRoot != true"),
                Some(Reason::AdmissionRefused),
            ),
            (
                403,
                forbidden("pod rejected: RuntimeClass \"gvisor\" not found"),
                Some(Reason::AdmissionRefused),
            ),
            (
                403,
                forbidden("[maximum memory usage per Container is 1Gi, but limit is 4Gi]"),
                Some(Reason::AdmissionRefused),
            ),
            (
                403,
                forbidden(
                    "User \"o\" cannot create resource \"pods\" in API group \"\" in the namespace \"a\"",
                ),
                None,
            ),
            (
                403,
                forbidden("unable to create new content in namespace a because it is being terminated"),
                None,
            ),
            (
                403,
                forbidden("error looking up service account a/default: serviceaccount \"default\" not found"),
                None,
            ),
            (
                422,
                "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
                    .to_owned(),
                Some(Reason::AdmissionRefused),
            ),
            (
                400,
                "admission webhook \"w\" denied the request: no".to_owned(),
                Some(Reason::AdmissionRefused),
            ),
            (
                422,
                "Pod \"a\" is invalid: spec.affinity: Required value".to_owned(),
                Some(Reason::InvalidSpec),
            ),
            (413, "Request entity too large: limit is 3145728".to_owned(), Some(Reason::InvalidSpec)),
            (401, "Unauthorized".to_owned(), None),
            (404, "namespaces \"a\" not found".to_owned(), None),
            (429, "too many requests".to_owned(), None),
            (500, "Internal error occurred: failed calling webhook".to_owned(), None),
            (503, "apiserver is shutting down".to_owned(), None),
        ];
        for (code, message, wanted) in cases {
            let status = Status { code, message, ..Status::default() };
            assert_eq!(reason(&status), wanted, "{status:?}");
        }
    }
}
