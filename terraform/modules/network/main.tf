data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:a new zone sorts behind the first three, so that it moves nothing; a zone in trouble stays in the list, because no state is asked for

  # EKS puts no control plane into these zones.
  # https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  # No Local Zones and no Wavelength Zones.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 3
      error_message = "The network spans three zones, and this region offers fewer."
    }
  }
}

locals {
  zones = slice(sort(data.aws_availability_zones.available.names), 0, 3)
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# Adopted so that it loses the rules that AWS gives it: nothing may use it.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-default-unused" }
}
