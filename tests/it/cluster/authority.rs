//! Who the parts of the test cluster trust, and the certificates of it.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// A certificate authority, and the key that signs the tokens of service accounts.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, PEM.
    pub(crate) certificate: String,
    /// PKCS#8, PEM.
    pub(crate) service_account_key: String,
    /// PEM.
    pub(crate) service_account_public_key: String,
}

/// A certificate and its key, both PEM.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("ostler test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let tokens = KeyPair::generate().unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            service_account_key: tokens.serialize_pem(),
            service_account_public_key: tokens.public_key_pem(),
        }
    }

    /// The certificate of a server with these names and addresses.
    pub(crate) fn server(&self, common_name: &str, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named(common_name);
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The certificate of a user of this name in these groups.
    pub(crate) fn user(&self, name: &str, groups: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        // A name has each kind of part once here, and this kind can be written in two ways.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        assert!(groups.len() <= kinds.len(), "a user of these tests is in two groups at most: {groups:?}");
        for (kind, group) in kinds.into_iter().zip(groups) {
            params.distinguished_name.push(kind, *group);
        }
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The kubeconfig of such a user, as JSON, which is YAML, too.
    pub(crate) fn kubeconfig(&self, url: &str, name: &str, groups: &[&str]) -> String {
        let Identity { certificate, key } = self.user(name, groups);
        let authority = STANDARD.encode(&self.certificate);
        let (certificate, key) = (STANDARD.encode(certificate), STANDARD.encode(key));
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        })
        .to_string()
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
