resource "aws_acm_certificate" "service" {
  domain_name       = var.name
  validation_method = "DNS"

  tags = { Name = var.name }

  # A load balancer uses the certificate until it has the next one.
  lifecycle {
    create_before_destroy = true
  }
}

locals {
  # One name, one option.
  validation = one(aws_acm_certificate.service.domain_validation_options)
}

resource "aws_route53_record" "validation" {
  count = var.zone_id == null ? 0 : 1

  zone_id = var.zone_id
  name    = local.validation.resource_record_name
  type    = local.validation.resource_record_type
  records = [local.validation.resource_record_value]
  ttl     = 300

  # The record is the same for every certificate of the name in this account.
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "service" {
  count = var.zone_id == null ? 0 : 1

  certificate_arn         = aws_acm_certificate.service.arn
  validation_record_fqdns = aws_route53_record.validation[*].fqdn
}

# EKS Auto Mode creates the load balancer from the Ingress, and tags it. Before that the
# list is empty: the record is created by the next apply.
data "aws_lbs" "ingress" {
  count = var.zone_id == null ? 0 : 1

  tags = {
    "eks:eks-cluster-name"               = var.cluster_name
    "ingress.eks.amazonaws.com/resource" = "LoadBalancer"
    "ingress.eks.amazonaws.com/stack"    = var.ingress
  }

  lifecycle {
    postcondition {
      condition     = length(self.arns) <= 1
      error_message = "Several load balancers have the tags of the Ingress ${var.ingress}. Delete all but the one in its status, then apply again."
    }
  }
}

locals {
  load_balancers = flatten(data.aws_lbs.ingress[*].arns)
}

data "aws_lb" "ingress" {
  count = length(local.load_balancers) > 0 ? 1 : 0

  arn = one(local.load_balancers)
}

# Not one record per load balancer: the record of a new one would be created before that
# of the old one is deleted, which Route 53 rejects.
resource "aws_route53_record" "service" {
  #checkov:skip=CKV2_AWS_23:the load balancer is created by EKS, not by Terraform
  count = length(data.aws_lb.ingress)

  zone_id = var.zone_id
  name    = var.name
  type    = "A"

  alias {
    name                   = data.aws_lb.ingress[0].dns_name
    zone_id                = data.aws_lb.ingress[0].zone_id
    evaluate_target_health = false
  }
}
