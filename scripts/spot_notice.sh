#!/usr/bin/env bash
# Passes a spot instance's interruption notice on to Ray, which then starts nothing more on this node
# and lets its trials write a checkpoint.
#
# AWS takes a spot instance away two minutes after the notice has appeared in the instance's
# metadata, and recommends to look every 5 seconds:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
#
# Usage: spot_notice.sh [SERVICE]   SERVICE is where the metadata is, by default AWS's own address.

service=${1:-http://169.254.169.254}

notice() {
    local token  # IMDSv2: the metadata answers only those who have asked for a token before
    token=$(curl -fsS --max-time 2 -X PUT "$service/latest/api/token" \
        -H 'X-aws-ec2-metadata-token-ttl-seconds: 60') &&
        curl -fs --max-time 2 "$service/latest/meta-data/spot/instance-action" \
            -H "X-aws-ec2-metadata-token: $token"
}

until found=$(notice); do
    sleep 5
done
echo "$(date -Is) notice: $found"

# Without --node-id it is about this node. 10 of the 120 seconds are for what has passed by now.
until ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message 'AWS takes this spot instance away' --deadline-remaining-seconds 110; do
    sleep 1
done
