mock_provider "aws" {
  source = "../../tests/mocks"

  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["eu-west-1c", "eu-west-1a", "eu-west-1b", "eu-west-1d"] }
  }
}

variables {
  name                 = "roster"
  cidr                 = "10.0.0.0/16"
  nat_gateway_per_zone = false
  log_retention_days   = 30
}

run "one_nat_gateway" {
  assert {
    condition     = aws_subnet.private[*].availability_zone == ["eu-west-1a", "eu-west-1b", "eu-west-1c"] && aws_subnet.public[*].availability_zone == aws_subnet.private[*].availability_zone
    error_message = "The subnets span the first three zones of the region."
  }

  assert {
    condition     = aws_subnet.private[*].cidr_block == ["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18"] && aws_subnet.public[*].cidr_block == ["10.0.192.0/22", "10.0.196.0/22", "10.0.200.0/22"]
    error_message = "Three quarters are private, the rest is public, without overlap."
  }

  assert {
    condition = alltrue([for subnet in aws_subnet.public :
      subnet.tags["kubernetes.io/role/elb"] == "1" && !contains(keys(subnet.tags), "kubernetes.io/role/internal-elb")
    ])
    error_message = "Internet-facing load balancers find the public subnets."
  }

  assert {
    condition = alltrue([for subnet in aws_subnet.private :
      subnet.tags["kubernetes.io/role/internal-elb"] == "1" && !contains(keys(subnet.tags), "kubernetes.io/role/elb")
    ])
    error_message = "Internal load balancers find the private subnets."
  }

  assert {
    condition     = alltrue([for subnet in concat(aws_subnet.public, aws_subnet.private) : coalesce(subnet.map_public_ip_on_launch, false) == false])
    error_message = "No subnet assigns public addresses."
  }

  assert {
    condition     = length(aws_nat_gateway.egress) == 1 && length(aws_eip.nat) == 1 && alltrue([for route in aws_route.private_nat : route.nat_gateway_id == aws_nat_gateway.egress[0].id])
    error_message = "One NAT gateway serves all three private subnets."
  }

  assert {
    condition     = aws_nat_gateway.egress[0].subnet_id == aws_subnet.public[0].id && aws_eip.nat[0].domain == "vpc"
    error_message = "The NAT gateway is in a public subnet and has an address."
  }

  assert {
    condition     = alltrue([for i in range(3) : aws_route_table_association.private[i].route_table_id == aws_route_table.private[i].id && aws_route.private_nat[i].route_table_id == aws_route_table.private[i].id && aws_route_table_association.public[i].route_table_id == aws_route_table.public.id])
    error_message = "Each private subnet has a route table with a route to the internet; the public subnets share one."
  }

  assert {
    condition     = aws_route.public_internet.gateway_id == aws_internet_gateway.gateway.id && aws_route.public_internet.route_table_id == aws_route_table.public.id
    error_message = "Only the public subnets use the internet gateway."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.gateway : endpoint.vpc_endpoint_type == "Gateway" && length(setsubtract(aws_route_table.private[*].id, endpoint.route_table_ids)) == 0]) && keys(aws_vpc_endpoint.gateway) == ["dynamodb", "s3"]
    error_message = "Traffic to DynamoDB and S3 bypasses the NAT gateway in every private subnet."
  }

  assert {
    condition     = length(coalesce(aws_default_security_group.unused.ingress, [])) == 0 && length(coalesce(aws_default_security_group.unused.egress, [])) == 0
    error_message = "The default security group has no rules."
  }

  assert {
    condition     = output.private_subnet_ids == aws_subnet.private[*].id && output.public_subnet_ids == aws_subnet.public[*].id && output.vpc_id == aws_vpc.network.id && length(output.nat_public_ips) == 1
    error_message = "The outputs are those of the network."
  }
}

run "flow_logs" {
  assert {
    condition     = aws_flow_log.vpc.vpc_id == aws_vpc.network.id && aws_flow_log.vpc.traffic_type == "ALL" && aws_flow_log.vpc.log_destination == aws_cloudwatch_log_group.flow_logs.arn
    error_message = "All traffic of the VPC is logged."
  }

  assert {
    condition     = aws_cloudwatch_log_group.flow_logs.name == "/aws/vpc/roster/flow-logs" && aws_cloudwatch_log_group.flow_logs.retention_in_days == 30
    error_message = "Flow logs expire."
  }

  assert {
    condition = jsondecode(aws_iam_role.flow_logs.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    }]
    error_message = "Only flow logs of this account use the role."
  }

  assert {
    condition     = { for statement in jsondecode(aws_iam_role_policy.flow_logs.policy).Statement : statement.Resource => join(" ", statement.Action) } == { "${aws_cloudwatch_log_group.flow_logs.arn}:*" = "logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents", "*" = "logs:DescribeLogGroups" }
    error_message = "The role writes to its log group only."
  }
}

run "one_nat_gateway_per_zone" {
  variables {
    nat_gateway_per_zone = true
    cidr                 = "172.31.240.0/20"
  }

  assert {
    condition     = length(aws_nat_gateway.egress) == 3 && alltrue([for i in range(3) : aws_route.private_nat[i].nat_gateway_id == aws_nat_gateway.egress[i].id && aws_nat_gateway.egress[i].subnet_id == aws_subnet.public[i].id && aws_nat_gateway.egress[i].allocation_id == aws_eip.nat[i].id])
    error_message = "Each zone has its own NAT gateway."
  }

  assert {
    condition     = aws_subnet.private[*].cidr_block == ["172.31.240.0/22", "172.31.244.0/22", "172.31.248.0/22"] && aws_subnet.public[*].cidr_block == ["172.31.252.0/26", "172.31.252.64/26", "172.31.252.128/26"]
    error_message = "The smallest range is divided like the largest."
  }
}

run "new_zone_in_the_region" {
  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["eu-west-10", "eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }

  assert {
    condition     = aws_subnet.private[*].availability_zone == ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
    error_message = "The subnets stay in their zones."
  }
}

run "region_with_two_zones" {
  command = plan

  override_data {
    target = data.aws_availability_zones.available
    values = { names = ["us-west-1a", "us-west-1c"] }
  }

  expect_failures = [data.aws_availability_zones.available]
}

run "rejects_range_without_length" {
  command = plan
  variables { cidr = "10.0.0.0" }
  expect_failures = [var.cidr]
}

run "rejects_too_large_a_range" {
  command = plan
  variables { cidr = "10.0.0.0/15" }
  expect_failures = [var.cidr]
}

run "rejects_too_small_a_range" {
  command = plan
  variables { cidr = "10.0.0.0/21" }
  expect_failures = [var.cidr]
}
