//! What a container's environment says about AWS credentials. Never a value that is a secret.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Variables that the AWS SDKs look at, in the container's spec.
#[expect(clippy::struct_excessive_bools, reason = "marks of an object, independent of each other")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityEnv {
    /// `AWS_ROLE_ARN`.
    pub role_arn: Option<Value>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub web_identity_token_file: Option<Value>,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub container_credentials_uri: Option<Value>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
    pub container_token_file: Option<Value>,
    /// `AWS_ACCESS_KEY_ID` is set; its value is kept only in [`IdentityEnv::static_keys`] and only when it is a long-term key id.
    pub access_key_id: bool,
    /// `AWS_ACCESS_KEY_ID` comes from a Secret, a `ConfigMap` or a field: its value is not known.
    pub access_key_id_referenced: bool,
    /// `AWS_SECRET_ACCESS_KEY` is set. Its value is never looked at.
    pub secret_access_key: bool,
    /// `AWS_EC2_METADATA_DISABLED` is `true`.
    pub metadata_disabled: bool,
    /// Literal values of any variable that are long-term access key ids (`AKIA` and 16 of `A-Z2-7`): name of the variable
    /// and the key id, which is not a secret. At most [`IdentityEnv::MAX_STATIC_KEYS`].
    pub static_keys: Vec<(String, String)>,
    /// `envFrom` brings variables that are not known here.
    pub env_from: bool,
}

impl IdentityEnv {
    /// One container with more keys than this says nothing new by the next.
    pub const MAX_STATIC_KEYS: usize = 8;
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// As the object states it.
    Literal(Arc<str>),
    /// From a Secret, a `ConfigMap` or a field: not known.
    Referenced,
}
