//! A VPC with what a node has in it, and the program that asks about it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use system_tests::agent;
use system_tests::moto::Moto;
use tempfile::TempDir;

/// Makes it; more prefix list entries and rules than one page takes.
const VPC: &str = "
vpc = ec2.create_vpc(CidrBlock='10.9.0.0/16')['Vpc']['VpcId']
ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock='100.64.0.0/16')
other = ec2.create_vpc(CidrBlock='10.9.0.0/16')['Vpc']['VpcId']
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock='10.9.1.0/24')['Subnet']['SubnetId']
other_subnet = ec2.create_subnet(VpcId=other, CidrBlock='10.9.1.0/24')['Subnet']['SubnetId']
pl = ec2.create_managed_prefix_list(PrefixListName='offices', MaxEntries=300, AddressFamily='IPv4',
    Entries=[{'Cidr': f'192.0.{i}.0/24'} for i in range(250)])['PrefixList']['PrefixListId']
tags = [{'Key': 'aws:eks:cluster-name', 'Value': 'prod'}, {'Key': 'kubernetes.io/cluster/prod', 'Value': 'owned'}]
db = ec2.create_security_group(GroupName='db', Description='d', VpcId=vpc)['GroupId']
app = ec2.create_security_group(GroupName='app', Description='d', VpcId=vpc)['GroupId']
ec2.create_tags(Resources=[app], Tags=[tags[1]])
ec2.authorize_security_group_ingress(GroupId=db, IpPermissions=[
    {'IpProtocol': 'tcp', 'FromPort': 3306, 'ToPort': 3306, 'UserIdGroupPairs': [{'GroupId': app}]},
    {'IpProtocol': 'tcp', 'FromPort': 22, 'ToPort': 22, 'PrefixListIds': [{'PrefixListId': pl}]},
    {'IpProtocol': 'icmp', 'FromPort': -1, 'ToPort': -1, 'IpRanges': [{'CidrIp': '10.0.0.0/8'}]},
    {'IpProtocol': '-1', 'Ipv6Ranges': [{'CidrIpv6': '2001:db8::/32'}]}])
def interface(subnet, ip, groups):
    made = ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=ip, Groups=groups)['NetworkInterface']
    return {'id': made['NetworkInterfaceId'], 'mac': made['MacAddress'], 'ip': ip}
own = interface(subnet, '10.9.1.10', [app])
branch = interface(subnet, '10.9.1.20', [app])
peer = interface(subnet, '10.9.1.30', [db])
double = interface(other_subnet, '10.9.1.30', [])
print(json.dumps({'vpc': vpc, 'subnet': subnet, 'list': pl, 'db': db, 'app': app, 'own': own, 'branch': branch,
                  'peer': peer, 'double': double}))
";

/// What is in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Vpc {
    #[serde(rename = "vpc")]
    pub(crate) id: String,
    pub(crate) subnet: String,
    pub(crate) list: String,
    pub(crate) db: String,
    pub(crate) app: String,
    pub(crate) own: Interface,
    pub(crate) branch: Interface,
    pub(crate) peer: Interface,
    pub(crate) double: Interface,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Interface {
    pub(crate) id: String,
    pub(crate) mac: String,
    pub(crate) ip: String,
}

/// Credentials for a process.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// A program that asks, with a directory of its own.
pub(crate) struct Asker {
    pub(crate) home: TempDir,
    endpoint: String,
}

impl Vpc {
    pub(crate) fn make(moto: &Moto) -> Result<Self> {
        moto.script(VPC, &Value::Null).context("make a VPC")
    }
}

impl Key {
    /// Any key, for a server that does not look.
    pub(crate) fn any() -> Self {
        Self { id: "AKIDCANARY".to_owned(), secret: "canarysecretQzX7".to_owned() }
    }

    /// As the SDK takes it from the environment.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", &self.id), ("AWS_SECRET_ACCESS_KEY", &self.secret)]
    }
}

impl Asker {
    pub(crate) fn new(endpoint: String) -> Result<Self> {
        Ok(Self { home: tempfile::tempdir().context("make a directory")?, endpoint })
    }

    /// What an agent's configuration has about EC2.
    pub(crate) fn configuration(endpoint: &str) -> Value {
        json!({ "region": Moto::REGION, "endpoint": endpoint, "fleet_nodes": 1, "refresh_seconds": 3_600 })
    }

    /// Runs the program.
    pub(crate) fn run(&self, key: &Key, arguments: &[&str]) -> Result<Output> {
        let configuration = json!({ "aws": Self::configuration(&self.endpoint) });
        let path = agent::write_configuration(self.home.path(), agent::free_port()?, configuration)?;
        Command::new(agent::program()?)
            .args(arguments)
            .arg("--config")
            .arg(path)
            .envs(key.environment())
            .output()
            .context("run the program")
    }

    /// Asks until each of these kinds of facts or calls was told, and gives the facts by their kind.
    pub(crate) fn ask(&self, key: &Key, wishes: &[&str], until: &str) -> Result<Facts> {
        self.ask_with(key, &[&["--seconds", "120", "--until", until], wishes].concat())
    }

    /// Asks for some seconds.
    pub(crate) fn ask_for_a_while(&self, key: &Key, wishes: &[&str]) -> Result<Facts> {
        self.ask_with(key, &[&["--seconds", "5"], wishes].concat())
    }

    fn ask_with(&self, key: &Key, arguments: &[&str]) -> Result<Facts> {
        let arguments: Vec<&str> = ["internal", "ec2"].iter().chain(arguments).copied().collect();
        let output = self.run(key, &arguments)?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the program ended with {}: {log}", output.status);
        let stdout = String::from_utf8(output.stdout).context("output is text")?;
        let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in stdout.lines() {
            let fact: BTreeMap<String, Value> = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
            for (kind, fact) in fact {
                kinds.entry(kind).or_default().insert(0, fact);
            }
        }
        Ok(Facts { kinds, stdout, log })
    }

    /// The file of answers.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        Path::join(self.home.path(), "data/ec2.json")
    }
}

/// What was told.
pub(crate) struct Facts {
    kinds: BTreeMap<String, Vec<Value>>,
    pub(crate) stdout: String,
    pub(crate) log: String,
}

impl Facts {
    /// All facts of a kind, the last one first.
    pub(crate) fn all(&self, kind: &str) -> &[Value] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The last fact of a kind.
    pub(crate) fn last(&self, kind: &str) -> Result<&Value> {
        self.all(kind).first().with_context(|| format!("no {kind} in {} {}", self.stdout, self.log))
    }

    /// How a call stands.
    pub(crate) fn source(&self, call: &str) -> Result<&Value> {
        let found = self.all("Source").iter().find(|source| source["call"] == call);
        found.with_context(|| format!("nothing about {call} in {} {}", self.stdout, self.log))
    }
}
