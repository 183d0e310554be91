# Gateway endpoints cost nothing, and what goes through them pays no NAT. They
# have the default policy: nodes pull image layers and packages from buckets that
# belong to AWS, and what a pod may do is said by its role.
data "aws_vpc_endpoint_service" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  service      = each.key
  service_type = "Gateway"
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = data.aws_vpc_endpoint_service.gateway[each.key].service_name
  route_table_ids   = aws_route_table.private[*].id

  tags = { Name = "${var.name}-${each.key}" }
}
