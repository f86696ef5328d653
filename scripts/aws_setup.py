"""Make what cluster.yaml needs on AWS: a bucket, a security group and two roles.

    python -m scripts.aws_setup --bucket my-searches --ssh-from 203.0.113.7/32

It uses the region of cluster.yaml and your AWS credentials, starts nothing and costs nothing by
itself. Run it again to let in another address. What exists already stays, but for the group's
rules: they become the two below.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import boto3  # type: ignore[import-untyped]
import typer
import yaml
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.errors import UserError

CLUSTER = Path(__file__).resolve().parent.parent / "cluster.yaml"
GROUP = "xlt-ray"
HEAD = "xlt-ray-head"
WORKER = "xlt-ray-worker"
_EXISTS = {
    "BucketAlreadyExists",  # possibly another account's: its rules are then set in vain, and say so
    "BucketAlreadyOwnedByYou",
    "EntityAlreadyExists",
    "InvalidGroup.Duplicate",
    "LimitExceeded",  # an instance profile holds one role, and has it
    "InvalidInput",  # the role of spot instances, of which an account has one
}


def unless_it_exists(make: Callable[..., Any], **arguments: Any) -> None:
    """Call AWS to make something; that it is there already is fine."""
    try:
        make(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _EXISTS:
            raise


def make_bucket(bucket: str, region: str) -> None:
    """Make the bucket; nothing in it can be made public."""
    s3 = boto3.client("s3", region)
    where = {} if region == "us-east-1" else {"LocationConstraint": region}
    settings = {"CreateBucketConfiguration": where} if where else {}
    unless_it_exists(s3.create_bucket, Bucket=bucket, **settings)
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )


def make_group(ssh_from: str, region: str) -> str:
    """Make the security group of all nodes and set what it lets in; return its id."""
    ec2 = boto3.resource("ec2", region)
    (network,) = ec2.vpcs.filter(Filters=[{"Name": "is-default", "Values": ["true"]}])
    unless_it_exists(
        ec2.create_security_group,
        GroupName=GROUP,
        Description="SSH from one address, everything between the nodes",
        VpcId=network.id,
    )
    named = [{"Name": "group-name", "Values": [GROUP]}, {"Name": "vpc-id", "Values": [network.id]}]
    (group,) = ec2.security_groups.filter(Filters=named)
    if group.ip_permissions:
        group.revoke_ingress(IpPermissions=group.ip_permissions)
    group.authorize_ingress(
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group.id}]},
        ]
    )
    return str(group.id)


def make_role(name: str, statements: list[dict[str, Any]]) -> str:
    """Make a role for instances and the instance profile that hands it out; return its ARN."""
    iam = boto3.client("iam", "us-east-1")  # of the whole account, whatever the region
    trusted = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}
    unless_it_exists(
        iam.create_role,
        RoleName=name,
        AssumeRolePolicyDocument=_policy([trusted | {"Action": "sts:AssumeRole"}]),
    )
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=_policy(statements))
    unless_it_exists(iam.create_instance_profile, InstanceProfileName=name)
    unless_it_exists(iam.add_role_to_instance_profile, InstanceProfileName=name, RoleName=name)
    return str(iam.get_role(RoleName=name)["Role"]["Arn"])


def bucket_statements(bucket: str) -> list[dict[str, Any]]:
    """Reading and writing the bucket, which every node does."""
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
            "Resource": f"arn:aws:s3:::{bucket}",
        },
        {
            "Effect": "Allow",
            "Action": [
                *("s3:GetObject", "s3:PutObject", "s3:DeleteObject"),
                *("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
            ],
            "Resource": f"arn:aws:s3:::{bucket}/*",
        },
    ]


def head_statements(cluster_name: str, worker_role: str) -> list[dict[str, Any]]:
    """Starting workers and ending those of this cluster, which Ray does on the head."""
    return [
        {
            "Effect": "Allow",
            "Action": [
                *("ec2:RunInstances", "ec2:CreateTags"),
                *("ec2:DescribeInstances", "ec2:DescribeInstanceTypes"),
            ],
            "Resource": "*",
        },
        {
            "Effect": "Allow",
            "Action": "ec2:TerminateInstances",
            "Resource": "*",
            "Condition": {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": cluster_name}},
        },
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": worker_role},
    ]


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def setup(
    bucket: Annotated[str, typer.Option(help="Name of the bucket, without s3://.")],
    ssh_from: Annotated[str, typer.Option(help="Addresses that SSH is open to, as a.b.c.d/32.")],
) -> None:
    """Make a bucket, a security group and two roles for cluster.yaml."""
    try:
        addresses = ipaddress.IPv4Network(ssh_from)
    except ValueError as error:
        raise UserError(f"--ssh-from: {error}; expected addresses such as 203.0.113.7/32") from None
    if addresses.prefixlen < 16:
        raise UserError(f"--ssh-from {ssh_from}: too wide; name your own address, a.b.c.d/32")
    cluster = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    region = cluster["provider"]["region"]
    make_bucket(bucket, region)
    group = make_group(str(addresses), region)
    worker = make_role(WORKER, bucket_statements(bucket))
    make_role(HEAD, bucket_statements(bucket) + head_statements(cluster["cluster_name"], worker))
    # An account that has never had a spot instance lacks this role, and a head may not make it.
    unless_it_exists(
        boto3.client("iam", "us-east-1").create_service_linked_role,
        AWSServiceName="spot.amazonaws.com",
    )
    print("For `metadata` of cluster.yaml:")
    print(f"  security_groups: &security_groups [{group}]")
    print(f"  bucket: &bucket echo {bucket} > ~/bucket")


if __name__ == "__main__":
    run_command_line(setup)
