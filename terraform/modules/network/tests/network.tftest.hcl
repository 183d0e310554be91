mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1c", "eu-west-1a", "eu-west-1b", "eu-west-1d"] }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/vpc/roster/flow-logs" }
  }
}

variables {
  name = "roster"
}

run "one_nat_gateway" {
  assert {
    condition     = aws_subnet.private[*].availability_zone == ["eu-west-1a", "eu-west-1b", "eu-west-1c"] && aws_subnet.public[*].availability_zone == aws_subnet.private[*].availability_zone
    error_message = "The subnets span the first three zones of the region."
  }

  assert {
    condition     = aws_subnet.private[*].cidr_block == ["10.0.0.0/18", "10.0.64.0/18", "10.0.128.0/18"] && aws_subnet.public[*].cidr_block == ["10.0.192.0/22", "10.0.196.0/22", "10.0.200.0/22"]
    error_message = "Three quarters are private, the rest is public, and nothing overlaps."
  }

  assert {
    condition = alltrue([for subnet in aws_subnet.public :
      subnet.tags["kubernetes.io/role/elb"] == "1" && subnet.tags["kubernetes.io/cluster/roster"] == "shared" && !contains(keys(subnet.tags), "kubernetes.io/role/internal-elb")
    ])
    error_message = "Load balancers that face the internet find the public subnets."
  }

  assert {
    condition = alltrue([for subnet in aws_subnet.private :
      subnet.tags["kubernetes.io/role/internal-elb"] == "1" && subnet.tags["kubernetes.io/cluster/roster"] == "shared" && !contains(keys(subnet.tags), "kubernetes.io/role/elb")
    ])
    error_message = "Internal load balancers find the private subnets."
  }

  assert {
    condition     = alltrue([for subnet in concat(aws_subnet.public, aws_subnet.private) : coalesce(subnet.map_public_ip_on_launch, false) == false])
    error_message = "Nothing gets a public address by itself."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_eip.nat) == 1 && alltrue([for route in aws_route.private_nat : route.nat_gateway_id == aws_nat_gateway.this[0].id])
    error_message = "One NAT gateway serves all three private subnets."
  }

  assert {
    condition     = aws_nat_gateway.this[0].subnet_id == aws_subnet.public[0].id && aws_eip.nat[0].domain == "vpc"
    error_message = "The NAT gateway is in a public subnet with an address of its own."
  }

  assert {
    condition     = alltrue([for i in range(3) : aws_route_table_association.private[i].route_table_id == aws_route_table.private[i].id && aws_route.private_nat[i].route_table_id == aws_route_table.private[i].id && aws_route_table_association.public[i].route_table_id == aws_route_table.public.id])
    error_message = "Each private subnet has a route table of its own, with a way out; the public ones share one."
  }

  assert {
    condition     = aws_route.public_internet.gateway_id == aws_internet_gateway.this.id && aws_route.public_internet.route_table_id == aws_route_table.public.id
    error_message = "The internet gateway is the way out of the public subnets, and of no other."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.gateway : endpoint.vpc_endpoint_type == "Gateway" && length(setsubtract(aws_route_table.private[*].id, endpoint.route_table_ids)) == 0]) && keys(aws_vpc_endpoint.gateway) == ["dynamodb", "s3"]
    error_message = "DynamoDB and S3 are reached past the NAT gateway from every private subnet."
  }

  assert {
    condition     = length(coalesce(aws_default_security_group.this.ingress, [])) == 0 && length(coalesce(aws_default_security_group.this.egress, [])) == 0
    error_message = "The default security group lets nothing through."
  }

  assert {
    condition     = output.private_subnet_ids == aws_subnet.private[*].id && output.public_subnet_ids == aws_subnet.public[*].id && output.vpc_id == aws_vpc.this.id && length(output.nat_public_ips) == 1
    error_message = "The outputs name what was made."
  }
}

run "flow_logs" {
  assert {
    condition     = aws_flow_log.this.vpc_id == aws_vpc.this.id && aws_flow_log.this.traffic_type == "ALL" && aws_flow_log.this.log_destination == aws_cloudwatch_log_group.flow_logs.arn
    error_message = "All traffic of the VPC is logged."
  }

  assert {
    condition     = aws_cloudwatch_log_group.flow_logs.name == "/aws/vpc/roster/flow-logs" && aws_cloudwatch_log_group.flow_logs.retention_in_days == 365
    error_message = "Flow logs are kept for a year."
  }

  assert {
    condition = jsondecode(aws_iam_role.flow_logs.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    }]
    error_message = "Flow logs of this account may use the role, and nobody else."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.flow_logs.policy).Statement[*].Resource == ["${aws_cloudwatch_log_group.flow_logs.arn}:*"]
    error_message = "The role writes to its log group alone."
  }
}

run "one_nat_gateway_a_zone" {
  variables {
    nat_gateway_per_zone = true
    cidr                 = "172.31.240.0/20"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3 && alltrue([for i in range(3) : aws_route.private_nat[i].nat_gateway_id == aws_nat_gateway.this[i].id && aws_nat_gateway.this[i].subnet_id == aws_subnet.public[i].id && aws_nat_gateway.this[i].allocation_id == aws_eip.nat[i].id])
    error_message = "Each zone goes out through itself."
  }

  assert {
    condition     = aws_subnet.private[*].cidr_block == ["172.31.240.0/22", "172.31.244.0/22", "172.31.248.0/22"] && aws_subnet.public[*].cidr_block == ["172.31.252.0/26", "172.31.252.64/26", "172.31.252.128/26"]
    error_message = "The smallest range is divided like the largest."
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

run "refuses_name_with_capitals" {
  command = plan
  variables { name = "Roster" }
  expect_failures = [var.name]
}

run "refuses_name_that_ends_with_a_hyphen" {
  command = plan
  variables { name = "roster-" }
  expect_failures = [var.name]
}

run "refuses_long_name" {
  command = plan
  variables { name = "a123456789012345678901234" }
  expect_failures = [var.name]
}

run "refuses_range_that_is_none" {
  command = plan
  variables { cidr = "10.0.0.0" }
  expect_failures = [var.cidr]
}

run "refuses_range_with_host_bits" {
  command = plan
  variables { cidr = "10.0.1.0/16" }
  expect_failures = [var.cidr]
}

run "refuses_too_large_a_range" {
  command = plan
  variables { cidr = "10.0.0.0/15" }
  expect_failures = [var.cidr]
}

run "refuses_too_small_a_range" {
  command = plan
  variables { cidr = "10.0.0.0/21" }
  expect_failures = [var.cidr]
}

run "refuses_ipv6" {
  command = plan
  variables { cidr = "fd00::/16" }
  expect_failures = [var.cidr]
}

run "refuses_retention_that_cloudwatch_has_not" {
  command = plan
  variables { log_retention_days = 100 }
  expect_failures = [var.log_retention_days]
}
