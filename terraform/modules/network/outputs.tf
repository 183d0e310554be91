output "vpc_id" {
  description = "ID of the VPC."
  value       = aws_vpc.this.id
}

output "public_subnet_ids" {
  description = "IDs of the public subnets, one a zone."
  value       = aws_subnet.public[*].id
}

output "private_subnet_ids" {
  description = "IDs of the private subnets, one a zone, usable once they have their way out."
  value       = aws_subnet.private[*].id

  # A node that starts before its subnet has a route to the registry and the
  # Kubernetes API never joins, and one that outlives the route never leaves.
  depends_on = [
    aws_route.private_nat,
    aws_route_table_association.private,
    aws_route_table_association.public,
    aws_vpc_endpoint.gateway,
  ]
}

output "nat_public_ips" {
  description = "Addresses from which the private subnets reach the internet."
  value       = aws_eip.nat[*].public_ip
}
