//! Who asks, and where: credentials by the chain of the AWS SDK, the region and the endpoint.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use tokio::time::timeout;

use super::Options;
use super::trouble::{Kind, Trouble};

/// Longest time for the chain: a try at the metadata service takes a second, with retries some seconds.
const CHAIN_WAIT: Duration = Duration::from_secs(20);
/// Credentials with less time left are not used any more.
const TIME_LEFT_MIN: Duration = Duration::from_mins(2);
/// Longest name of a region that is believed to be one.
const REGION_BYTES_MAX: usize = 32;

/// Gets credentials, keeps them until shortly before their end, and knows where EC2 is.
pub(super) struct Access {
    source: Source,
    place: Option<Place>,
    credentials: Option<Credentials>,
}

/// Where places come from.
enum Source {
    /// The configuration, and what the SDK finds.
    Sdk { region: Option<String>, endpoint: Option<String> },
    /// A test.
    #[cfg(test)]
    Given(Place),
}

/// Where EC2 is, and the chain that gives credentials for it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) region: String,
    /// Without a `/` at its end.
    pub(super) endpoint: String,
    provider: SharedCredentialsProvider,
}

// === impl Access ===

impl Access {
    pub(super) fn new(options: &Options) -> Self {
        let source = Source::Sdk { region: options.region.clone(), endpoint: options.endpoint.clone() };
        Self { source, place: None, credentials: None }
    }

    /// Credentials of a test's own for a server of its own.
    #[cfg(test)]
    pub(super) fn given(endpoint: String, provider: SharedCredentialsProvider) -> Self {
        let place = Place { region: "eu-central-1".to_owned(), endpoint, provider };
        Self { source: Source::Given(place), place: None, credentials: None }
    }

    /// What a request is signed with and sent to.
    pub(super) async fn get(&mut self) -> Result<(Place, Credentials), Trouble> {
        let late = || Trouble::new(Kind::NotConfigured, format!("no credentials within {} s", CHAIN_WAIT.as_secs()));
        let place = if let Some(place) = &self.place {
            place.clone()
        } else {
            let place = timeout(CHAIN_WAIT, self.source.place());
            let place = place.await.map_err(|_| late())??;
            self.place.insert(place).clone()
        };
        let credentials = if let Some(credentials) = self.credentials.take().filter(lasts) {
            credentials
        } else {
            let given = timeout(CHAIN_WAIT, place.provider.provide_credentials()).await.map_err(|_| late())?;
            given.map_err(|error| not_given(&error))?
        };
        self.credentials = Some(credentials.clone());
        Ok((place, credentials))
    }

    /// EC2 refused the credentials: files and services that give them are read anew.
    pub(super) fn refused(&mut self) {
        (self.place, self.credentials) = (None, None);
    }
}

impl Source {
    async fn place(&self) -> Result<Place, Trouble> {
        match self {
            Self::Sdk { region, endpoint } => find(region.clone(), endpoint.clone()).await,
            #[cfg(test)]
            Self::Given(place) => Ok(place.clone()),
        }
    }
}

fn lasts(credentials: &Credentials) -> bool {
    // One without an end lasts until it is refused.
    credentials.expiry().is_none_or(|end| end > SystemTime::now() + TIME_LEFT_MIN)
}

async fn find(region: Option<String>, endpoint: Option<String>) -> Result<Place, Trouble> {
    let tls = tls::Provider::Rustls(CryptoMode::Ring);
    let http = aws_smithy_http_client::Builder::new().tls_provider(tls).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    let config = loader.load().await;
    let region = config.region().map(ToString::to_string).filter(|region| is_region(region)).ok_or_else(|| {
        let text = "no region: set aws.region or AWS_REGION, or let the agent reach the instance's metadata";
        Trouble::new(Kind::NotConfigured, text)
    })?;
    let endpoint = endpoint.unwrap_or_else(|| named_endpoint(&config, &region));
    let provider = config.credentials_provider();
    let provider = provider.ok_or_else(|| Trouble::new(Kind::NotConfigured, NOT_CONFIGURED))?;
    Ok(Place { endpoint: endpoint.trim_end_matches('/').to_owned(), region, provider })
}

const NOT_CONFIGURED: &str = "no credentials are configured: give the agent's service account a role (IRSA or EKS Pod \
     Identity) with the policy in deploy/iam, or set aws.mode to off";

/// Why there are none. What the SDK says beyond its own kinds may quote files and answers, and is not shown; it is in
/// the SDK's own log, which `SEKISHO_LOG=aws_config=debug` shows.
fn not_given(error: &CredentialsError) -> Trouble {
    let text = match error {
        CredentialsError::CredentialsNotLoaded(_) => NOT_CONFIGURED,
        CredentialsError::ProviderTimedOut(_) => {
            "whoever gives credentials did not answer in time: is the metadata service, STS or the Pod Identity agent \
             reachable?"
        }
        CredentialsError::InvalidConfiguration(_) => {
            "the configuration of credentials cannot be used: look at the AWS_ variables and the profile"
        }
        CredentialsError::ProviderError(_) => {
            "whoever gives credentials refused: does the role trust the agent's service account, and does the pod's token \
             file exist?"
        }
        _ => "whoever gives credentials answered something else",
    };
    Trouble::new(Kind::NotConfigured, text)
}

/// `AWS_ENDPOINT_URL` and its like in the profile, else the region's public name.
fn named_endpoint(config: &SdkConfig, region: &str) -> String {
    if let Some(url) = config.endpoint_url() {
        return url.to_owned();
    }
    public_endpoint(region, config.use_fips().unwrap_or(false), config.use_dual_stack().unwrap_or(false))
}

/// The partitions and their names are in every SDK's `partitions.json`.
fn public_endpoint(region: &str, fips: bool, dual_stack: bool) -> String {
    let (plain, dual) = match region {
        _ if region.starts_with("cn-") => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        _ if region.starts_with("us-iso-") => ("c2s.ic.gov", "api.aws.ic.gov"),
        _ if region.starts_with("us-isob-") => ("sc2s.sgov.gov", "api.aws.scloud"),
        _ if region.starts_with("us-isof-") => ("csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        _ if region.starts_with("eu-isoe-") => ("cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        _ if region.starts_with("eusc-") => ("amazonaws.eu", "api.amazonwebservices.eu"),
        _ => ("amazonaws.com", "api.aws"),
    };
    let service = if fips { "ec2-fips" } else { "ec2" };
    format!("https://{service}.{region}.{}", if dual_stack { dual } else { plain })
}

/// It becomes part of a host's name.
fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= REGION_BYTES_MAX && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_endpoint() {
        for (region, fips, dual_stack, expected) in [
            ("eu-central-1", false, false, "https://ec2.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", true, false, "https://ec2-fips.us-gov-west-1.amazonaws.com"),
            ("us-east-1", false, true, "https://ec2.us-east-1.api.aws"),
            ("cn-north-1", false, false, "https://ec2.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", false, false, "https://ec2.us-iso-east-1.c2s.ic.gov"),
            ("eusc-de-east-1", false, false, "https://ec2.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(public_endpoint(region, fips, dual_stack), expected);
        }
    }

    #[test]
    fn a_region_is_a_word_of_a_host_name() {
        assert!(is_region("eu-central-1"));
        for text in ["", "eu central", "evil.example/", &"a".repeat(33)] {
            assert!(!is_region(text), "{text}");
        }
    }

    #[test]
    fn credentials_near_their_end_are_not_used() {
        let ends_in = |seconds| {
            let end = SystemTime::now() + Duration::from_secs(seconds);
            Credentials::new("AKID", "secret", None, Some(end), "test")
        };
        assert!(lasts(&Credentials::new("AKID", "secret", None, None, "test")));
        assert!(lasts(&ends_in(900)));
        assert!(!lasts(&ends_in(60)));
    }
}
