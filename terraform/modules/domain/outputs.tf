output "certificate_arn" {
  description = "ARN of the certificate; with a hosted zone, once it is issued."
  value       = coalesce(one(aws_acm_certificate_validation.service[*].certificate_arn), aws_acm_certificate.service.arn)
}

output "validation_record" {
  description = "DNS record that proves control of the name to ACM."
  value       = "${local.validation.resource_record_name} ${local.validation.resource_record_type} ${local.validation.resource_record_value}"
}

output "load_balancer_tags" {
  description = "Tags of the load balancer that the name leads to; null without a hosted zone."
  value       = one(data.aws_lbs.ingress[*].tags)
}
