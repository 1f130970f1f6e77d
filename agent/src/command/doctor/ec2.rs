//! What `sekisho doctor` says of the EC2 API.

use super::{Finding, Verdict};
use crate::api::protocol::{Ec2Standing, Ec2Status};

/// One line for all calls when they stand alike, else one for each.
pub(super) fn findings(status: Ec2Status) -> Vec<Finding> {
    let Ec2Status { enabled, place, unreachable, calls } = status;
    let whole = |state, text| vec![finding("ec2 api".to_owned(), state, text, None)];
    if !enabled {
        return whole(Verdict::Ok, "off by aws.mode: verdicts about security groups are not to be had".to_owned());
    }
    if let Some(why) = unreachable {
        return whole(Verdict::Degraded, format!("not to be asked: {why}"));
    }
    if calls.is_empty() {
        let text = match place {
            Some(place) => format!("answers, {place}"),
            None => "nothing was asked: nothing here needs it yet, or this is no EC2 instance".to_owned(),
        };
        return whole(Verdict::Ok, text);
    }
    let same = calls.iter().all(|call| call.missing_actions.is_empty() && call.error == calls[0].error);
    if let Some(why) = calls[0].error.as_ref().filter(|_| same && calls.len() > 1) {
        return whole(Verdict::Degraded, format!("not to be asked: {why}"));
    }
    place
        .map(|place| finding("ec2 api".to_owned(), Verdict::Ok, place, None))
        .into_iter()
        .chain(calls.into_iter().map(call))
        .collect()
}

fn call(standing: Ec2Standing) -> Finding {
    let Ec2Standing { name, gives, age_seconds, error, missing_actions } = standing;
    let age = age_seconds.map_or_else(|| "allowed".to_owned(), |age| format!("last worked {age} s ago"));
    let name = format!("ec2 {name}");
    match error {
        None => finding(name, Verdict::Ok, age, None),
        Some(why) if missing_actions.is_empty() => {
            let age = age_seconds.map_or_else(|| "never worked".to_owned(), |age| format!("last worked {age} s ago"));
            finding(name, Verdict::Degraded, format!("failed, {age}, so there are no new {gives}: {why}"), None)
        }
        Some(why) => {
            let cure =
                format!("allow {} in the policy of the agent's role (deploy/iam)", missing_actions.join(" and "));
            finding(name, Verdict::Degraded, format!("denied, so there are no {gives}: {why}"), Some(cure))
        }
    }
}

fn finding(name: String, state: Verdict, text: String, cure: Option<String>) -> Finding {
    Finding { name, state, text, cure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(name: &str, age_seconds: Option<u64>, error: Option<&str>, missing: &[&str]) -> Ec2Standing {
        Ec2Standing {
            name: name.to_owned(),
            gives: "figures".to_owned(),
            age_seconds,
            error: error.map(str::to_owned),
            missing_actions: missing.iter().map(|&action| action.to_owned()).collect(),
        }
    }

    fn told(calls: Vec<Ec2Standing>) -> Vec<(String, Verdict, String, Option<String>)> {
        let status = Ec2Status { enabled: true, calls, ..Ec2Status::default() };
        findings(status).into_iter().map(|one| (one.name, one.state, one.text, one.cure)).collect()
    }

    #[test]
    fn calls_that_fail_alike_are_one_line() {
        let lines = told(vec![
            standing("subnets", None, Some("no credentials"), &[]),
            standing("vpcs", None, Some("no credentials"), &[]),
        ]);
        let [(name, state, text, _)] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((name.as_str(), *state), ("ec2 api", Verdict::Degraded));
        assert!(text.ends_with("no credentials"), "{text}");
    }

    #[test]
    fn a_denied_call_says_what_to_allow_and_the_others_their_age() {
        let denied = standing("vpcs", None, Some("UnauthorizedOperation"), &["ec2:DescribeVpcs"]);
        let lines =
            told(vec![standing("subnets", Some(7), None, &[]), denied, standing("x", Some(9), Some("broke"), &[])]);
        assert_eq!((lines[0].1, lines[0].2.as_str()), (Verdict::Ok, "last worked 7 s ago"));
        assert_eq!(lines[1].1, Verdict::Degraded);
        assert!(lines[1].3.as_deref().is_some_and(|cure| cure.contains("ec2:DescribeVpcs")), "{lines:?}");
        assert!(lines[2].2.contains("last worked 9 s ago") && lines[2].2.ends_with("broke"), "{lines:?}");
    }

    #[test]
    fn off_and_unasked_are_as_they_should_be() {
        assert_eq!(findings(Ec2Status::default())[0].state, Verdict::Ok);
        assert_eq!(told(vec![])[0].1, Verdict::Ok);
    }
}
