mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name         = "roster.example.com"
  zone_id      = "Z0123456789ABCDEFGHIJ"
  cluster_name = "roster"
  ingress      = "people/roster"
}

run "before_the_ingress" {
  assert {
    condition     = aws_acm_certificate.service.domain_name == "roster.example.com" && aws_acm_certificate.service.validation_method == "DNS"
    error_message = "The certificate is for the name."
  }

  assert {
    condition     = { for record in aws_route53_record.validation : record.name => "${record.zone_id} ${record.type} ${join(",", record.records)}" } == { "_0123.roster.example.com." = "Z0123456789ABCDEFGHIJ CNAME _4567.acm-validations.aws." }
    error_message = "The hosted zone proves control of the name."
  }

  assert {
    condition     = aws_acm_certificate_validation.service[0].certificate_arn == aws_acm_certificate.service.arn && aws_acm_certificate_validation.service[0].validation_record_fqdns == toset([aws_route53_record.validation[0].fqdn])
    error_message = "Terraform waits for the certificate to be issued."
  }

  assert {
    condition     = length(aws_route53_record.service) == 0
    error_message = "Without a load balancer there is no record."
  }

  assert {
    condition     = output.certificate_arn == aws_acm_certificate.service.arn && output.validation_record == "_0123.roster.example.com. CNAME _4567.acm-validations.aws."
    error_message = "The outputs are the certificate and its record."
  }
}

run "after_the_ingress" {
  override_data {
    target = data.aws_lbs.ingress
    values = { arns = ["arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/k8s-people-roster-0123/0123456789abcdef"] }
  }

  override_data {
    target = data.aws_lb.ingress
    values = { dns_name = "k8s-people-roster-0123.eu-west-1.elb.amazonaws.com", zone_id = "Z32O12XQLNTSW2" }
  }

  assert {
    condition     = data.aws_lbs.ingress[0].tags == tomap({ "eks:eks-cluster-name" = "roster", "ingress.eks.amazonaws.com/resource" = "LoadBalancer", "ingress.eks.amazonaws.com/stack" = "people/roster" })
    error_message = "The load balancer is the one of the Ingress."
  }

  assert {
    condition     = [for record in aws_route53_record.service : "${record.zone_id} ${record.name} ${record.type} ${one(record.alias).name} ${one(record.alias).zone_id}"] == ["Z0123456789ABCDEFGHIJ roster.example.com A k8s-people-roster-0123.eu-west-1.elb.amazonaws.com Z32O12XQLNTSW2"]
    error_message = "The name leads to the load balancer."
  }
}

# The Ingress was created again. The record keeps its address in the state, so it is updated.
run "new_load_balancer" {
  override_data {
    target = data.aws_lbs.ingress
    values = { arns = ["arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/k8s-people-roster-4567/4567890123abcdef"] }
  }

  override_data {
    target = data.aws_lb.ingress
    values = { dns_name = "k8s-people-roster-4567.eu-west-1.elb.amazonaws.com", zone_id = "Z32O12XQLNTSW2" }
  }

  assert {
    condition     = one(aws_route53_record.service[0].alias).name == "k8s-people-roster-4567.eu-west-1.elb.amazonaws.com" && length(aws_route53_record.service) == 1
    error_message = "The same record leads to the new load balancer."
  }
}

run "two_load_balancers" {
  command = plan

  override_data {
    target = data.aws_lbs.ingress
    values = { arns = ["arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/one/0123456789abcdef", "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/two/4567890123abcdef"] }
  }

  expect_failures = [data.aws_lbs.ingress]
}

run "dns_elsewhere" {
  variables {
    zone_id = null
  }

  assert {
    condition     = length(aws_route53_record.validation) == 0 && length(aws_acm_certificate_validation.service) == 0 && length(aws_route53_record.service) == 0 && length(data.aws_lbs.ingress) == 0
    error_message = "Without a hosted zone there is only the certificate."
  }

  assert {
    condition     = output.certificate_arn == aws_acm_certificate.service.arn && output.validation_record == "_0123.roster.example.com. CNAME _4567.acm-validations.aws."
    error_message = "The outputs are the certificate and the record to create."
  }
}
