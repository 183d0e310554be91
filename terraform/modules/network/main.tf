data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:a change of the list moves nothing, see terraform_data.zones; an impaired zone stays in the list, because state is not filtered

  # EKS does not support these zones.
  # https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  # Excludes Local Zones and Wavelength Zones.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 3
      error_message = "The network needs three availability zones, and this region has fewer."
    }
  }
}

# The zones of the first apply. A new zone of the region must not move subnets.
resource "terraform_data" "zones" {
  input            = slice(sort(data.aws_availability_zones.available.names), 0, 3)
  triggers_replace = data.aws_region.current.region

  lifecycle {
    ignore_changes = [input]
  }
}

locals {
  zones = terraform_data.zones.output
}

resource "aws_vpc" "network" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# Managed without rules, which removes the ones that AWS adds.
resource "aws_default_security_group" "unused" {
  vpc_id = aws_vpc.network.id

  tags = { Name = "${var.name}-default-unused" }
}
